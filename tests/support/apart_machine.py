"""A state machine over tenants whose jobs end processes: the scripts against `tether/scheduling/apart.py`.

Processes with several slots draw jobs of several tenants, end them, and die of them, by a clock that the
machine sets. What each death makes of each tenant is compared with the pure decisions; and of every draw it
is checked beside whom jobs of a tenant run that is apart, whose turn it is, and that others go on.
"""

import itertools
import re
from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from support.hand_worker import growth
from support.pool_stage import POOL, Stage
from support.script_clock import ScriptClock
from tether.jobs import JobError, Priority
from tether.scheduling.apart import (
    DeadJobs,
    Turn,
    WatchedTenant,
    watched_after_death_apart,
    watched_after_open_death,
    watched_after_proofs,
)
from tether.scheduling.blame import RanJob, Suspicion
from tether.scheduling.keeping import FIRST_PATIENCE_MS, Keeping

SLOTS = 4
TENANTS = ["a", "b", "c"]
KILLER = "a"
TIMES_MS = [100, 300, 2_000, 6_000, 40_000]
NOBODYS = ("ended", "host")
OTHERS_MS, TURN_MS, KEEPING_MS = 30_000, 5_000, 30_000


class Process:
    """A process, and what runs in it.

    Attributes:
      runs: Job id -> drawn job.
      apart: The tenant that is or was apart and of whose jobs it runs nothing else, or None.
      proved_at: When these will have shown that they do no harm.
      is_counted: Whether that counted.
    """

    def __init__(self, port):
        self.port = port
        self.worker_id = port.boot_id.partition(".")[0]
        self.runs = {}
        self.drawn_at = {}
        self.apart, self.proved_at, self.is_counted = None, 0, False


class Known:
    """What Redis holds of a pool's tenants."""

    def __init__(self, fields):
        fields = {name.decode(): value.decode() for name, value in fields.items()}
        self.watched = {
            name[2:]: WatchedTenant(*map(int, text.split()))
            for name, text in fields.items()
            if name.startswith("t:")
        }
        self.others, self.rest = int(fields.get("others", 0)), int(fields.get("rest", 0))
        began, until, ended, boot_id = fields.get("turn", "0 0 0 none").split()
        self.turn = None if boot_id == "none" else Turn(boot_id, int(began), int(until), int(ended))

    def is_apart(self, tenant):
        return tenant in self.watched and self.watched[tenant].is_apart


class Keeper:
    """What Redis holds of who keeps itself free in a pool, and what others lost by that."""

    def __init__(self, fields, now):
        fields = {name.decode(): value.decode() for name, value in fields.items()}
        until = int(fields.get("until", 0))
        self.boot_id = fields.get("worker") if until > now else None
        self.drew_at = until - KEEPING_MS
        self.keeping = Keeping(
            int(fields.get("lost", 0)) if self.boot_id else 0,
            int(fields.get("patience", FIRST_PATIENCE_MS)),
            int(fields.get("open", 0)),
        )


class ApartMachine(RuleBasedStateMachine):
    server = None
    namespace = ""

    @initialize(rounds=st.sampled_from([0, 4]))
    def begin(self, rounds=0):
        self.clock = ScriptClock(self.server)
        self.stage = Stage(self.server, self.namespace)
        self.numbers = itertools.count(1)
        self.boots = itertools.count(1)
        self.processes = [self.new_process("one"), self.new_process("two")]
        self.waiting, self.tenant_of, self.poisoned = set(), {}, set()
        if rounds:
            # Most of what is checked shows only once a tenant is apart.
            self.a_tenants_jobs_kill(rounds, others_end=True)

    def new_process(self, worker):
        return Process(self.stage.worker(f"{worker}.{next(self.boots)}"))

    def field(self, job_id, name):
        return self.stage.field(job_id, name) or ""

    def known(self):
        return Known(self.stage.redis.hgetall(f"{self.stage.keys.prefix}:apart:{POOL}"))

    def keeper(self):
        return Keeper(self.stage.redis.hgetall(f"{self.stage.keys.prefix}:quarantine:{POOL}"), self.now)

    @property
    def now(self):
        return self.clock.now

    @rule(tenant=st.sampled_from(TENANTS), count=st.integers(1, 6))
    def place(self, tenant, count):
        job_ids = [f"{tenant}-{next(self.numbers):04}" for _ in range(count)]
        self.stage.place_all(job_ids, tenant=tenant)
        self.tenant_of |= dict.fromkeys(job_ids, tenant)
        self.waiting |= set(job_ids)

    @rule(milliseconds=st.sampled_from(TIMES_MS))
    def time_passes(self, milliseconds):
        self.clock.pass_time(milliseconds)

    @rule(index=st.integers(0, 1))
    def draw(self, index):
        self.draw_of(self.processes[index])

    def tenants_in_lanes(self, known):
        """Tenants that are not apart and have jobs that need not run alone."""
        found = self.stage.redis.zrange(self.stage.keys.pool_tenants(POOL, Priority.STANDARD), 0, -1)
        return {name.decode() for name in found if not known.is_apart(name.decode())}

    def draw_of(self, process):
        free = SLOTS - len(process.runs)
        if not free or any(self.is_tried(process, job) for job in process.runs.values()):
            return []
        before, keeper = self.known(), self.keeper()
        others = self.tenants_in_lanes(before)
        is_shared = bool(others) or before.others + OTHERS_MS > self.now
        running = dict(process.runs)
        is_confined = process.apart is not None and bool(running) and process.proved_at > self.now
        if not running:
            process.apart = None
        elif process.apart is not None and not is_confined and not process.is_counted:
            self.note_proofs(before, process.apart, len(running))
            process.is_counted = True
        jobs = list(process.port.draw(free, [POOL], busy=bool(running)).jobs)
        after = self.known()
        assert but_for_turns(after) == but_for_turns(before), "who ran for long speaks for its tenant"
        drawn = {job.job_id: self.tenant_of[job.job_id] for job in jobs}
        assert set(drawn) <= self.waiting, "what is drawn waits"
        apart = {tenant for tenant in drawn.values() if before.is_apart(tenant)}
        tried = [job for job in jobs if job.alone]
        begins = not is_confined and bool(tried or apart)
        if is_confined:
            assert set(drawn.values()) <= {process.apart}, "nothing else runs beside it"
        elif apart and not tried:
            assert len(set(drawn.values())) == 1, "nothing else is drawn with it"
            goes_on = not is_shared and apart == {process.apart}
            assert not running or goes_on, "it begins in an empty process"
        assert not tried or (len(tried) == len(jobs) and not running), "who is tried is alone"
        if begins and is_shared and before.watched and any(each.is_apart for each in before.watched.values()):
            self.check_turn(process, before, after, bool(others))
        if apart and not tried and is_shared:
            record = before.watched[next(iter(apart))]
            assert len(drawn) <= record.room_beside(len(running)), "one after a death, and twice as many then"
        if before.turn is not None and after.turn is None:
            assert after.rest == self.now + before.turn.rest_ms(self.now), "others come first for as long"
        self.check_keeping(process, keeper, bool(others), begins and not (running and apart))
        if not jobs and not is_confined and self.may_have_others(process, after):
            assert self.keeper().boot_id == process.port.boot_id, "others go on"
        if apart and not tried:
            (process.apart,) = apart
            process.proved_at = self.now + before.watched[process.apart].proof_ms
            process.is_counted = False
            assert after.turn is not None
            assert (after.turn.boot_id, after.turn.until_ms) == (process.port.boot_id, process.proved_at)
        elif not is_confined and drawn:
            process.apart = None
        if others & set(drawn.values()) and not tried:
            self.check_counters(after)
        self.waiting -= set(drawn)
        process.runs |= {job.job_id: job for job in jobs}
        process.drawn_at |= dict.fromkeys(drawn, self.now)
        return jobs

    def may_have_others(self, process, known):
        """Whether a job of a tenant that is not apart waits that the process did not give back just now."""
        return any(
            not known.is_apart(self.tenant_of[job_id])
            and not self.field(job_id, "group")
            and self.field(job_id, "avoid") != process.port.boot_id
            for job_id in self.waiting
        )

    def is_tried(self, process, job):
        return job.alone and process.drawn_at[job.job_id] + job.proof > self.now

    def note_proofs(self, before, tenant, count):
        """Jobs of a tenant that is apart have run for long enough: that is told by the draw."""
        if before.is_apart(tenant):
            before.watched[tenant] = watched_after_proofs(before.watched[tenant], count)

    def check_turn(self, process, before, after, do_others_wait):
        turn, rest = before.turn, before.rest
        goes_on = (
            turn is not None
            and turn.boot_id == process.port.boot_id
            and not turn.ended_ms
            and turn.began_ms + TURN_MS > self.now
        )
        if goes_on:
            assert after.turn.began_ms == turn.began_ms, "it is the same turn still"
            return
        if turn is not None:
            runs = [each for each in self.processes if each.port.boot_id == turn.boot_id and each.runs]
            assert turn.is_over(process.worker_id, bool(runs), self.now), "one at a time"
            rest = self.now + turn.rest_ms(self.now)
            assert not do_others_wait, "others come first after a turn"
        assert not do_others_wait or rest <= self.now, "others come first"
        assert after.turn is not None
        assert after.turn.began_ms == self.now

    def check_keeping(self, process, before, do_others_wait, begins):
        """What others lose by a worker that keeps itself free is counted, and is bounded."""
        after, boot_id = self.keeper(), process.port.boot_id
        if begins and before.boot_id:
            assert not after.boot_id
            assert after.keeping == before.keeping.after_beginning(self.now), "others come first then"
        elif (after.boot_id == boot_id and after.drew_at == self.now) or before.boot_id == boot_id:
            known, waited = replace(before.keeping, lost_ms=0), 0
            if before.boot_id == boot_id:
                known, waited = before.keeping, (self.now - before.drew_at if do_others_wait else 0)
            kept = after.boot_id == boot_id
            if kept and after.drew_at < self.now:
                return
            assert (after.keeping, kept) == known.after_draw(waited, self.now), "others wait only so long"

    def check_counters(self, known):
        """Who is passed over for being apart is owed nothing for that."""
        floor = float(self.stage.redis.hget(f"{self.stage.keys.prefix}:served:{POOL}:standard", "floor") or 0)
        for name, score in self.stage.redis.zrange(
            self.stage.keys.pool_tenants(POOL, Priority.STANDARD), 0, -1, withscores=True
        ):
            assert not known.is_apart(name.decode()) or score >= floor, "no credit for the time apart"

    def busy(self):
        return [process for process in self.processes if process.runs]

    @precondition(lambda self: self.busy())
    @rule(
        data=st.data(),
        milliseconds=st.sampled_from(TIMES_MS),
        how=st.sampled_from(["finish", "finish", "fail", "release"]),
    )
    def one_ends(self, data, milliseconds, how):
        process = data.draw(st.sampled_from(self.busy()))
        job_id = data.draw(st.sampled_from(sorted(process.runs)))
        self.clock.pass_time(milliseconds)
        self.end(process, job_id, how)

    def end(self, process, job_id, how):
        before, tenant = self.known(), self.tenant_of[job_id]
        job = process.runs.pop(job_id)
        if how == "finish":
            process.port.finish(growth(job))
            if process.apart == tenant and before.is_apart(tenant) and not process.is_counted:
                before.watched[tenant] = watched_after_proofs(before.watched[tenant], 1)
        elif how == "fail":
            process.port.fail(growth(job), kind="failed", error=JobError("engine_failed", ""))
        else:
            process.port.release(growth(job))
            self.waiting.add(job_id)
        assert self.known().watched == before.watched, "what ends well speaks for its tenant"

    @precondition(lambda self: self.busy())
    @rule(
        data=st.data(),
        milliseconds=st.sampled_from(TIMES_MS),
        how=st.sampled_from(["signal 11", "signal 11", "oom", *NOBODYS]),
    )
    def die(self, data, milliseconds, how):
        process = data.draw(st.sampled_from(self.busy()))
        self.clock.pass_time(milliseconds)
        self.be_gone(process, how)

    @rule(rounds=st.integers(1, 8), others_end=st.booleans(), is_shared=st.sampled_from([True, True, False]))
    def a_tenants_jobs_kill(self, rounds, others_end, is_shared=True):
        """Each process dies that runs one of its jobs; what runs in others ends well."""
        self.place(KILLER, 2)
        if is_shared:
            self.place("b", 2)
        for _ in range(rounds):
            for process in list(self.processes):
                self.draw_of(process)
            self.clock.pass_time(300)
            for process in self.busy():
                if any(self.tenant_of[job_id] == KILLER for job_id in process.runs):
                    self.be_gone(process, "signal 11")
                elif others_end:
                    for job_id in list(process.runs):
                        self.end(process, job_id, "finish")
            self.clock.pass_time(2_500)

    @rule(index=st.integers(0, 1), milliseconds=st.sampled_from(TIMES_MS), one_ends=st.booleans())
    def a_tenants_jobs_go_on(self, index, milliseconds, one_ends):
        """An empty process draws jobs of a tenant that may be apart, and draws again."""
        process = self.processes[index]
        for job_id in list(process.runs):
            self.end(process, job_id, "finish")
        self.place(KILLER, 4)
        self.draw_of(process)
        self.clock.pass_time(milliseconds)
        if one_ends and process.runs:
            self.end(process, next(iter(process.runs)), "finish")
        self.draw_of(process)

    @rule(
        index=st.integers(0, 1), milliseconds=st.sampled_from([300, 2_000, 6_000]), rounds=st.integers(1, 8)
    )
    def others_come_beside_a_stream(self, index, milliseconds, rounds):
        """A process runs one job on and on, while others end and come, and one may wait for its turn."""
        process = self.processes[index]
        self.place(KILLER, 1)
        for _ in range(rounds):
            self.place("b", 1)
            self.draw_of(process)
            self.clock.pass_time(milliseconds)
            for job_id in list(process.runs)[1:]:
                self.end(process, job_id, "finish")

    def be_gone(self, process, how):
        before = self.known()
        jobs = list(process.runs)
        held = {job_id: suspicion_of(self.field(job_id, "suspicion")) for job_id in jobs}
        others = self.tenants_in_lanes(before)
        lanes = {
            name.decode()
            for name in self.stage.redis.zrange(self.stage.keys.pool_tenants(POOL, "standard"), 0, -1)
        }
        assert process.port.gone(process.port.boot_id, process.port.process, how)
        after = self.known()
        self.processes[self.processes.index(process)] = self.new_process(process.worker_id)
        self.waiting |= {job_id for job_id in jobs if self.field(job_id, "state") == "placed"}
        if how in NOBODYS:
            assert after.watched == before.watched, "no tenant is the cause"
            return
        died, suspects = self.died_of(process, held)
        tenants = {self.tenant_of[job_id] for job_id in jobs}
        is_shared = len(tenants) > 1 or before.others + OTHERS_MS > self.now or bool(lanes - tenants)
        expected = dict(before.watched)
        if process.apart and process.proved_at > self.now and before.is_apart(process.apart):
            record = expected[process.apart]
            expected[process.apart] = watched_after_death_apart(record, died[process.apart].ran_ms, self.now)
        elif any(each.suspects for each in died.values()) and is_shared:
            expected = watched_after_open_death(expected, died, self.now)
        assert after.watched == expected, "what a death tells of tenants"
        if before.turn is not None and before.turn.boot_id == process.port.boot_id:
            assert after.turn is not None
            assert after.turn.ended_ms == self.now, "the turn lasts until its worker is back"
        self.check_suspects(before, after, suspects, others)

    def died_of(self, process, held):
        """The tenants' jobs as the decisions know them, and who was reproduced."""
        died, suspects = {}, []
        for job_id, suspicion in held.items():
            tenant, ran = self.tenant_of[job_id], self.now - process.drawn_at[job_id]
            is_suspect = RanJob(job_id, ran, suspicion).is_reproduced
            if is_suspect:
                suspects.append((job_id, suspicion))
            former = died.get(tenant, DeadJobs(0, ran))
            counts = is_suspect and not process.runs[job_id].alone
            died[tenant] = DeadJobs(former.suspects + counts, min(former.ran_ms, ran))
        return died, suspects

    def check_suspects(self, before, after, suspects, others):
        has_set_apart = any(
            after.is_apart(tenant) and not before.is_apart(tenant) for tenant in after.watched
        )
        if has_set_apart:
            for job_id in self.waiting:
                held = suspicion_of(self.field(job_id, "suspicion"))
                is_of_the_open = held is not None and not held.lone and self.field(job_id, "alone") == "0"
                if is_of_the_open and after.is_apart(self.tenant_of[job_id]):
                    was_apart = before.is_apart(self.tenant_of[job_id])
                    assert was_apart or not self.field(job_id, "group"), "its jobs are found apart"
                elif is_of_the_open and job_id not in dict(suspects):
                    is_of_a_trial = any(death for death in self.trials_of(job_id))
                    assert is_of_a_trial or not self.field(job_id, "group"), "suspects leave the quarantine"
        for job_id, _ in suspects:
            if self.field(job_id, "state") != "placed":
                continue
            tenant, held = self.tenant_of[job_id], suspicion_of(self.field(job_id, "suspicion"))
            are_others = bool(others) or after.others + OTHERS_MS > self.now
            aparts = [name for name in after.watched if after.is_apart(name)]
            if held.lone == 0 and after.is_apart(tenant) and (len(aparts) > 1 or are_others):
                assert not self.field(job_id, "group"), "it is found among its tenant's"
            else:
                assert self.field(job_id, "group"), "it waits in the quarantine"

    def trials_of(self, job_id):
        return re.findall(r'"alone":true', self.field(job_id, "evidence"))

    def teardown(self):
        if not hasattr(self, "stage"):
            return
        try:
            self.come_to_the_end()
        finally:
            self.stage.close()
            self.clock.close()

    def come_to_the_end(self):
        """Whoever is apart, all that is not poison is drawn, and ends."""
        for _ in range(4 * len(self.waiting) + 60):
            for process in self.processes:
                for job_id in list(process.runs):
                    self.end(process, job_id, "finish")
                self.draw_of(process)
            self.clock.pass_time(2_500)
            if not self.waiting and not self.busy():
                break
        assert not self.waiting, "nobody is left waiting"


def but_for_turns(known):
    """What is known of tenants, but for when they last had a turn."""
    return {tenant: replace(record, turned_ms=0) for tenant, record in known.watched.items()}


def suspicion_of(text):
    """A suspicion as the scripts write it, or None."""
    return Suspicion(*map(int, text.split())) if text else None
