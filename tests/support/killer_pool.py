"""A pool whose jobs kill their workers, simulated: real scripts on a real Redis, made-up processes and time.

What is measured so is the same on every machine, however busy.
"""

import itertools

from support.apart_machine import Known
from support.hand_worker import growth
from support.pool_stage import POOL, Stage
from support.script_clock import ScriptClock

STEP_MS = 50
IDLE_MS = 3_000
"""An idle worker draws so often."""


class SimulatedJob:
    """A job of a tenant, which ends well after ``left_ms``, or ends its process after ``kills_ms``."""

    def __init__(self, job_id, tenant, left_ms, kills_ms=None):
        self.job_id, self.tenant, self.left_ms, self.kills_ms = job_id, tenant, left_ms, kills_ms
        self.ended_ms = None
        self.state = "placed"
        self.deaths = 0


class SimulatedWorker:
    """A worker, and its process while it has one: job id -> (drawn job, when)."""

    def __init__(self, name):
        self.name, self.port, self.up_at, self.draws_at, self.runs = name, None, 0, 0, {}


class KillerPool:
    """Workers with 4 slots draw jobs, run them, and die of them; a dead one is back after ``restart_ms``."""

    SLOTS = 4

    def __init__(self, server, *, workers, restart_ms=1_000):
        self.clock = ScriptClock(server)
        self.now, self.deaths, self.jobs, self.kills = 0, 0, {}, []
        self.stage = Stage(server, "killers")
        self.boots = itertools.count(1)
        self.workers = [SimulatedWorker(f"w{number}") for number in range(workers)]
        self.restart_ms = restart_ms

    def place(self, tenant, count, *, runs_ms=1_000, kills_ms=None):
        kind = "good" if kills_ms is None else "kills"
        jobs = [
            SimulatedJob(f"{tenant}-{kind}-{number:03}", tenant, runs_ms, kills_ms) for number in range(count)
        ]
        self.jobs |= {job.job_id: job for job in jobs}
        if jobs:
            self.stage.place_all([job.job_id for job in jobs], tenant=tenant)

    def good(self, *tenants):
        return [job for job in self.jobs.values() if job.kills_ms is None and job.tenant in tenants]

    def killers(self):
        return [job for job in self.jobs.values() if job.kills_ms is not None]

    def known(self):
        """What Redis holds of the pool's tenants."""
        return Known(self.stage.redis.hgetall(f"{self.stage.keys.prefix}:apart:{POOL}"))

    def run_until_good_ended(self, *tenants, within_ms):
        """Return after how many ms all good jobs of these tenants have ended well."""
        while any(job.state != "succeeded" for job in self.good(*tenants)):
            assert self.now < within_ms, [job.job_id for job in self.good(*tenants) if not job.ended_ms]
            self.run_for(STEP_MS)
        return self.now

    def run_for(self, milliseconds):
        for _ in range(milliseconds // STEP_MS):
            if self.now % 500 == 0:
                self.stage.tick()
            for worker in self.workers:
                self.step(worker)
            self.now += STEP_MS
            self.clock.pass_time(STEP_MS)

    def step(self, worker):
        if worker.port is None:
            if self.now < worker.up_at:
                return
            worker.port = self.stage.worker(f"{worker.name}.{next(self.boots)}")
            worker.draws_at = self.now
        if any(self.kills_now(job_id, drawn_at) for job_id, (_, drawn_at) in worker.runs.items()) or (
            self.kills and self.kills[0] <= (self.now, worker.name)
        ):
            self.die(worker)
            return
        for job_id, (drawn, drawn_at) in list(worker.runs.items()):
            job = self.jobs[job_id]
            if job.kills_ms is None and self.now - drawn_at >= job.left_ms:
                worker.port.finish(growth(drawn, 1))
                job.state, job.ended_ms = "succeeded", self.now
                del worker.runs[job_id]
                worker.draws_at = self.now
        if self.stage.redis.delete(self.stage.keys.wake(worker.port.boot_id)):
            worker.draws_at = self.now
        is_trying = any(
            drawn.alone and self.now - drawn_at < drawn.proof for drawn, drawn_at in worker.runs.values()
        )
        if self.now >= worker.draws_at and len(worker.runs) < self.SLOTS and not is_trying:
            found = worker.port.draw(self.SLOTS - len(worker.runs), [POOL], busy=bool(worker.runs))
            worker.runs |= {drawn.job_id: (drawn, self.now) for drawn in found.jobs}
            worker.draws_at = self.now + (found.again_in_ms or IDLE_MS)

    def kills_now(self, job_id, drawn_at):
        kills_ms = self.jobs[job_id].kills_ms
        return kills_ms is not None and self.now - drawn_at >= kills_ms

    def die(self, worker):
        if self.kills and self.kills[0] <= (self.now, worker.name):
            self.kills.pop(0)
        self.deaths += 1
        for job_id, (_, drawn_at) in worker.runs.items():
            # Its stream goes on where it stood.
            job = self.jobs[job_id]
            job.deaths, job.left_ms = job.deaths + 1, job.left_ms - (self.now - drawn_at)
        self.stage.die(worker.port)
        worker.port.close()
        self.stage.ports.remove(worker.port)
        for job_id in worker.runs:
            if self.stage.field(job_id, "state") == "poisoned":
                self.jobs[job_id].state, self.jobs[job_id].ended_ms = "dead", self.now
        worker.port, worker.runs, worker.up_at = None, {}, self.now + self.restart_ms

    def close(self):
        self.stage.close()
        self.clock.close()
