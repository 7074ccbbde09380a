"""A state machine over the scripts that judge workers: who is held, from whose jobs, and until when.

The model knows every end of an attempt. What is checked: nobody is held without as many different jobs in a
row; no tenant loses a worker by the failures of others' jobs, unless other workers succeeded meanwhile; a
held worker has one job of those tenants at a time; a success frees it.
"""

import itertools
import json

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from support.hand_worker import growth
from support.pool_stage import POOL, Stage
from tether.jobs import JobError

FAILURES = 2
UNDECIDED = 2
WORKERS = ("one", "two", "three")
TENANTS = ("red", "green", "blue")
BROKE = JobError("engine_failed", "x", retryable=True)
BAD_REQUEST = JobError("request_invalid", "x", retryable=False)
PAUSE = 10**6


class Streak:
    """What the model knows of a worker's failures in a row."""

    def __init__(self):
        self.jobs, self.tenants = set(), set()
        self.others_succeeded = False
        self.is_held = False
        self.tells_of_all = False


class HealthMachine(RuleBasedStateMachine):
    server = None
    namespace = ""

    @initialize()
    def begin(self):
        self.stage = Stage(self.server, self.namespace)
        self.stage.redis.hset(
            self.stage.keys.worker_health_settings,
            mapping={"failures": FAILURES, "pause": PAUSE, "max_pause": PAUSE},
        )
        self.ports = {name: self.stage.worker(f"{name}.1") for name in WORKERS}
        self.streaks = {name: Streak() for name in WORKERS}
        self.running = {name: [] for name in WORKERS}
        self.waiting = dict.fromkeys(TENANTS, 0)
        self.numbers = itertools.count(1)

    @rule(tenant=st.sampled_from(TENANTS), count=st.integers(1, 4))
    def place(self, tenant, count):
        self.stage.place_all([f"job-{next(self.numbers)}" for _ in range(count)], tenant=tenant)
        self.waiting[tenant] += count

    @rule(name=st.sampled_from(WORKERS), count=st.integers(1, 6))
    def draw(self, name, count):
        streak = self.streaks[name]
        barred = self.barred_of(streak) if streak.is_held else set()
        open_jobs = sum(count for tenant, count in self.waiting.items() if tenant not in barred)
        drawn = list(self.ports[name].draw(count, (POOL,), busy=bool(self.running[name])).jobs)
        assert not barred & {job.tenant for job in drawn}, (name, barred)
        assert len(drawn) == min(count, open_jobs), (name, barred, self.waiting)
        self.take(name, drawn)

    @rule(name=st.sampled_from(WORKERS), count=st.integers(1, 6))
    def draw_after_the_pause(self, name, count):
        streak = self.streaks[name]
        if not streak.is_held:
            return
        record = self.change(name, until_ms=1)
        barred = self.barred_of(streak)
        self.place(min(barred), 2)
        is_probing = any(job.job_id == record["probe"] for job in self.running[name])
        drawn = list(self.ports[name].draw(count, (POOL,), busy=bool(self.running[name])).jobs)
        probes = [job for job in drawn if job.tenant in barred]
        assert len(probes) <= (0 if is_probing else 1)
        if not is_probing and any(self.waiting[tenant] for tenant in barred) and len(drawn) < count:
            assert len(probes) == 1
        if not probes:
            self.change(name, until_ms=record["at"] + PAUSE)
        self.take(name, drawn)

    def change(self, name, **fields):
        """Change the record of a worker; return what it was."""
        key = self.stage.keys.worker_health(name)
        record = json.loads(self.stage.redis.hget(key, POOL))
        self.stage.redis.hset(key, POOL, json.dumps({**record, **fields}))
        return record

    def take(self, name, drawn):
        self.running[name] += drawn
        for job in drawn:
            self.waiting[job.tenant] -= 1

    @rule(
        name=st.sampled_from(WORKERS),
        tenant=st.sampled_from(TENANTS),
        count=st.integers(1, 5),
        fails=st.booleans(),
    )
    def run_some(self, name, tenant, count, fails):
        """What a worker does with some jobs of a tenant, and all else that it holds."""
        self.place(tenant, count)
        self.draw(name, count)
        for _ in list(self.running[name]):
            (self.fail if fails else self.succeed)(name, 0)

    @rule(name=st.sampled_from(WORKERS), at=st.integers(0, 9))
    def succeed(self, name, at):
        job = self.ended(name, at)
        if job is not None:
            self.ports[name].finish(growth(job))
            self.streaks[name] = Streak()
            for other, streak in self.streaks.items():
                if other != name and streak.jobs:
                    streak.others_succeeded = True

    @rule(name=st.sampled_from(WORKERS), at=st.integers(0, 9))
    def fail(self, name, at):
        job = self.ended(name, at)
        if job is not None:
            self.ports[name].fail(growth(job), kind="failed", error=BROKE)
            streak = self.streaks[name]
            streak.jobs.add(job.job_id)
            streak.tenants.add(job.tenant)
            needed = FAILURES * (1 if streak.others_succeeded else UNDECIDED)
            streak.is_held |= len(streak.jobs) >= needed
            # Whether others succeeded is looked at with each failure.
            streak.tells_of_all = streak.others_succeeded and len(streak.tenants) > 1

    @rule(name=st.sampled_from(WORKERS), at=st.integers(0, 9))
    def refuse(self, name, at):
        job = self.ended(name, at)
        if job is not None:
            self.ports[name].fail(growth(job), kind="failed", error=BAD_REQUEST)

    def ended(self, name, at):
        running = self.running[name]
        return running.pop(at % len(running)) if running else None

    def barred_of(self, streak):
        return set(TENANTS) if streak.tells_of_all else set(streak.tenants)

    @invariant()
    def records_say_who_is_held(self):
        if not hasattr(self, "stage"):
            return
        held_back = self.stage.held_back()
        for name, streak in self.streaks.items():
            text = self.stage.redis.hget(self.stage.keys.worker_health(name), POOL)
            held = bool(text) and json.loads(text)["pause"] > 0
            assert held == streak.is_held, (name, text)
            back = held_back.get(name, {}).get(POOL)
            barred = {tenant for tenant in TENANTS if back is not None and back.keeps_from(tenant)}
            assert barred == (self.barred_of(streak) if held else set()), (name, text, back)

    def teardown(self):
        if hasattr(self, "stage"):
            self.stage.close()
