"""A state machine over who is blamed where processes die: the scripts against `tether/scheduling/blame.py`.

Processes with several slots draw jobs, run them for some time, end them, hand them over, and die: seen by
a supervisor, or by nobody. What each death makes of each job is compared with the pure decisions; so is who
is tried with whom.
"""

import itertools
import json

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from support.hand_worker import growth
from support.pool_stage import POOL, Stage
from support.script_clock import ScriptClock
from tether.deaths import UNKNOWN, tells_little
from tether.jobs import JobError
from tether.scheduling.blame import DeathVerdict, RanJob, Suspicion, judge_death, tried_together

SLOTS = 4
TIMES_MS = [100, 300, 4_000, 60_000]
NOBODYS = ("ended", "host")
KILLED = "signal 9"
HOWS = [KILLED, "exit 1", "oom", UNKNOWN, *NOBODYS]
STATES = {DeathVerdict.FREE: "placed", DeathVerdict.SUSPECT: "placed", DeathVerdict.POISON: "poisoned"}


class Process:
    """A process, and the jobs that run in it: job id -> drawn job."""

    def __init__(self, port):
        self.port = port
        self.runs = {}


class BlameMachine(RuleBasedStateMachine):
    server = None
    namespace = ""

    @initialize()
    def begin(self):
        self.clock = ScriptClock(self.server)
        self.stage = Stage(self.server, self.namespace)
        self.numbers = itertools.count(1)
        self.boots = itertools.count(1)
        self.processes = [self.new_process(worker) for worker in ("one", "two")]
        self.held, self.groups, self.deaths = {}, {}, {}
        self.died = {"one": [], "two": []}
        self.waiting, self.poisoned = set(), set()

    def new_process(self, worker):
        return Process(self.stage.worker(f"{worker}.{next(self.boots)}"))

    def field(self, job_id, name):
        return self.stage.field(job_id, name) or ""

    def group_of(self, job_id):
        return next((group for group, members in self.groups.items() if job_id in members), None)

    @rule(count=st.integers(1, 6))
    def place(self, count):
        for _ in range(count):
            job_id = f"job-{next(self.numbers):04}"
            self.stage.place(job_id)
            self.waiting.add(job_id)

    @rule(index=st.integers(0, 1), is_patient=st.booleans(), has_waited=st.booleans())
    def draw(self, index, is_patient, has_waited):
        self.draw_of(self.processes[index], is_patient, has_waited)

    def draw_of(self, process, is_patient, has_waited):
        self.clock.pass_time(1)
        if is_patient and self.stage.redis.exists(f"{self.stage.keys.prefix}:quarantine:{POOL}"):
            self.stage.be_patient()
        if has_waited:
            self.wait_for_survivors_in_vain()
        tried_before = [job_id for each in self.processes for job_id, job in each.runs.items() if job.alone]
        free = 0 if any(job.alone for job in process.runs.values()) else SLOTS - len(process.runs)
        if not free:
            return
        waiting_of = {
            group: [member for member in members if member in self.waiting]
            for group, members in self.groups.items()
        }
        jobs = process.port.draw(free, [POOL], busy=bool(process.runs)).jobs
        for job in jobs:
            assert job.job_id in self.waiting, "what is drawn waits"
            assert job.alone == (self.group_of(job.job_id) is not None), "suspects alone are tried"
            assert job.deaths == self.deaths.get(job.job_id, 0)
        tried = [job.job_id for job in jobs if job.alone]
        if tried:
            assert len(tried) == len(jobs), "nothing runs beside those that are tried"
            assert not process.runs, "they are tried by one that runs nothing"
            assert not tried_before, "one worker at a time tries"
            group = waiting_of[self.group_of(tried[0])]
            others = [member for member in group if member != tried[0]]
            assert tried == list(tried_together([tried[0], *others]))[:free], "half of a group is tried"
            for job_id in tried:
                held = self.held[job_id]
                is_early = held.lone and not held.has_survivors(self.survived()) and held.at_ms > 1
                assert not is_early, "others come first between two deaths alone"
        for job in jobs:
            self.waiting.discard(job.job_id)
            process.runs[job.job_id] = job

    def wait_for_survivors_in_vain(self):
        """So much time passes that a suspect is tried again whether others ended well or not."""
        for job_id, held in list(self.held.items()):
            if held.lone and job_id in self.waiting:
                self.held[job_id] = held = Suspicion(
                    held.ran_ms, held.first_ms, held.lone, held.vain, held.survived_ms, 1
                )
                self.stage.redis.hset(self.stage.keys.job(job_id), "suspicion", text_of(held))

    def survived(self):
        return int(self.stage.redis.hget(f"{self.stage.keys.prefix}:quarantine:{POOL}", "survived") or 0)

    def run(self, process, milliseconds):
        self.clock.pass_time(1)
        for job_id in process.runs:
            self.stage.run_for(job_id, milliseconds, self.clock.now)

    def busy(self):
        return [process for process in self.processes if process.runs]

    @precondition(lambda self: self.busy())
    @rule(
        data=st.data(),
        milliseconds=st.sampled_from(TIMES_MS),
        how=st.sampled_from(["finish", "fail", "release"]),
    )
    def one_ends(self, data, milliseconds, how):
        process = data.draw(st.sampled_from(self.busy()))
        job_id = data.draw(st.sampled_from(sorted(process.runs)))
        self.run(process, milliseconds)
        self.end(process, job_id, how, milliseconds)

    def end(self, process, job_id, how, milliseconds):
        job = process.runs.pop(job_id)
        if how == "finish":
            process.port.finish(growth(job))
        elif how == "fail":
            process.port.fail(growth(job), kind="failed", error=JobError("engine_failed", ""))
        else:
            process.port.release(growth(job))
            held = self.held.get(job_id)
            if held is not None and milliseconds > held.proof_ms:
                self.forget(job_id)
                assert not self.field(job_id, "suspicion"), "nothing is held against who ran for longer"
            self.waiting.add(job_id)
            return
        self.forget(job_id)

    def forget(self, job_id):
        self.held.pop(job_id, None)
        for members in self.groups.values():
            if job_id in members:
                members.remove(job_id)

    @precondition(lambda self: self.busy())
    @rule(
        data=st.data(),
        milliseconds=st.sampled_from(TIMES_MS),
        how=st.sampled_from(HOWS),
        is_repeated=st.booleans(),
    )
    def die(self, data, milliseconds, how, is_repeated):
        process = data.draw(st.sampled_from(self.busy()))
        self.run(process, milliseconds)
        self.be_gone(process, how)
        if is_repeated:
            before = {job_id: self.field(job_id, "evidence") for job_id in self.deaths}
            assert process.port.gone(process.port.boot_id, process.port.process, "exit 3")
            assert {job_id: self.field(job_id, "evidence") for job_id in self.deaths} == before

    @rule(deaths=st.integers(2, 8), has_waited=st.booleans(), others_end=st.booleans())
    def one_worker_dies_again_and_again(self, deaths, has_waited, others_end):
        how = KILLED if deaths > 5 else "signal 11"
        for _ in range(deaths):
            process = self.processes[0]
            self.draw_of(process, is_patient=True, has_waited=has_waited)
            if process.runs:
                self.run(process, 100)
                self.be_gone(process, how)
            if others_end:
                self.others_end_well()

    @rule(has_waited=st.booleans())
    def one_worker_dies_and_the_next_hands_all_over(self, has_waited):
        self.draw_of(self.processes[0], is_patient=True, has_waited=has_waited)
        if self.processes[0].runs:
            self.run(self.processes[0], 100)
            self.be_gone(self.processes[0], "signal 11")
        process = self.processes[0]
        self.draw_of(process, is_patient=True, has_waited=has_waited)
        self.run(process, 60_000)
        for job_id in list(process.runs):
            self.end(process, job_id, "release", 60_000)

    def others_end_well(self):
        self.place(1)
        process = self.processes[1]
        self.draw_of(process, is_patient=False, has_waited=False)
        self.run(process, 60_000)
        for job_id in [job_id for job_id, job in process.runs.items() if not job.alone]:
            self.end(process, job_id, "finish", 60_000)

    @precondition(lambda self: self.busy())
    @rule(data=st.data())
    def another_tells_of_its_end(self, data):
        """Nobody can end another's life."""
        process = data.draw(st.sampled_from(self.busy()))
        assert not process.port.gone(process.port.boot_id, "made-up", "signal 9")

    @precondition(lambda self: self.busy())
    @rule(data=st.data())
    def vanish(self, data):
        """Its machine vanishes with its supervisor: leases alone tell of it, and that counts for nothing."""
        process = data.draw(st.sampled_from(self.busy()))
        before = {
            job_id: (self.field(job_id, "deaths"), self.field(job_id, "group")) for job_id in process.runs
        }
        for job_id in process.runs:
            self.stage.lose(job_id)
        for job_id, former in before.items():
            assert (self.field(job_id, "deaths"), self.field(job_id, "group")) == former, (
                "a host is no job's fault"
            )
        self.waiting |= set(process.runs)
        self.replace(process)

    def replace(self, process):
        worker = process.port.boot_id.partition(".")[0]
        self.processes[self.processes.index(process)] = self.new_process(worker)

    def be_gone(self, process, how):
        survived = self.survived()
        boot_id, jobs = process.port.boot_id, dict(process.runs)
        worker = boot_id.partition(".")[0]
        assert process.port.gone(boot_id, process.port.process, how)
        self.replace(process)
        if how in NOBODYS:
            for job_id in jobs:
                assert self.field(job_id, "state") == "placed"
                assert int(self.field(job_id, "deaths")) == self.deaths.get(job_id, 0), "no job is the cause"
            self.waiting |= set(jobs)
            return
        told = {job_id: json.loads(self.field(job_id, "evidence"))[-1] for job_id in jobs}
        for job_id, death in told.items():
            assert (death["boot"], death["how"], death["beside"]) == (boot_id, how, len(jobs) - 1)
            self.deaths[job_id] = self.deaths.get(job_id, 0) + 1
            assert int(self.field(job_id, "deaths")) == self.deaths[job_id]
        now = next(iter(told.values()))["at"]
        ran = [RanJob(job_id, death["ran"], self.held.get(job_id)) for job_id, death in sorted(told.items())]
        without = [
            job.job_id
            for job in ran
            if job.suspicion is not None
            and any(
                at >= job.suspicion.first_ms and job.job_id not in ran_in for at, ran_in in self.died[worker]
            )
        ]
        self.died[worker].append((now, frozenset(jobs)))
        rulings = judge_death(
            ran, now_ms=now, survived_ms=survived, died_without=without, tells_little=tells_little(how)
        )
        self.follow(boot_id, jobs, rulings)

    def follow(self, boot_id, jobs, rulings):
        """The model, as ruled; and the scripts the same."""
        suspects = [job_id for job_id, ruling in rulings.items() if ruling.verdict is DeathVerdict.SUSPECT]
        blamed = [job_id for job_id, ruling in rulings.items() if ruling.verdict is not DeathVerdict.FREE]
        old = {self.group_of(job_id) for job_id in blamed if jobs[job_id].alone} - {None}
        for job_id in jobs:
            for members in self.groups.values():
                if job_id in members:
                    members.remove(job_id)
        for group in old:
            for other in [member for member in self.groups[group] if member in self.waiting]:
                self.forget(other)
                assert self.field(other, "group") == "", "the other half is free"
        # In the order in which they were drawn.
        self.groups[boot_id] = sorted(
            suspects, key=lambda job_id: int(jobs[job_id].fence.draw_id.rpartition(":")[2])
        )
        for job_id, ruling in rulings.items():
            self.held[job_id] = ruling.suspicion
            assert self.field(job_id, "state") == STATES[ruling.verdict], (job_id, ruling)
            if ruling.verdict is DeathVerdict.POISON:
                self.poisoned.add(job_id)
                self.held.pop(job_id)
                continue
            group = boot_id if ruling.verdict is DeathVerdict.SUSPECT else ""
            assert self.field(job_id, "group") == group, (job_id, ruling)
            assert self.field(job_id, "suspicion") == text_of(ruling.suspicion), (job_id, ruling)
            self.waiting.add(job_id)

    def teardown(self):
        if not hasattr(self, "stage"):
            return
        try:
            self.come_to_the_end()
        finally:
            self.stage.close()
            self.clock.close()

    def come_to_the_end(self):
        """Whatever was held against whom, all that is not poison is drawn, and ends."""
        for _ in range(4 * len(self.waiting) + 40):
            for process in self.processes:
                for job_id in list(process.runs):
                    self.end(process, job_id, "finish", 1)
                self.draw_of(process, is_patient=True, has_waited=True)
            if not self.waiting and not self.busy():
                break
        assert not self.waiting, "no suspect is forgotten"
        kinds = [kind for _, kind in self.stage.outcomes()]
        assert kinds.count("poisoned") == len(self.poisoned)


def text_of(held):
    """A suspicion as the scripts write it."""
    return f"{held.ran_ms} {held.first_ms} {held.lone} {held.vain} {held.survived_ms} {held.at_ms}"
