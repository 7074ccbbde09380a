"""Every end of an attempt is noted, whichever script ended it, and goes to the database with the next
outcome."""

from dataclasses import dataclass

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from support.hand_worker import growth
from support.planted_bugs import plant
from support.pool_stage import OTHER, POOL, Stage, draw
from tether.broker.pools.attempt_log import read_attempt_log
from tether.broker.pools.outcomes import Outcomes
from tether.broker.pools.worker_port import WriteStatus
from tether.jobs import JobError, JobState

ERROR = JobError("engine_failed", "it broke")


@pytest.fixture
def stage(shared_redis_server, namespace):
    opened = Stage(shared_redis_server, namespace)
    yield opened
    opened.close()


def outcomes_of(stage):
    """All outcomes, in order."""
    reader = Outcomes(stage.redis, stage.keys, "reader")
    entries, unreadable = reader.read(1_000, 0)
    reader.close()
    assert unreadable == []
    return [entry.outcome for entry in entries]


def log_of(stage, job_id="a"):
    return read_attempt_log(*stage.redis.hmget(stage.keys.job(job_id), "log", "logged"))


def told(ends):
    """What a test says of ends: fence, offsets, cause, and where the job went."""
    return [
        (end.dispatch, end.attempt, end.draw_id, end.start_offset, end.offset, end.cause, end.went)
        for end in ends
    ]


def test_an_outcome_tells_every_attempt_before_it(stage):
    worker = stage.worker("w.1")
    stage.place("a")
    (first,) = draw(worker)
    worker.append(growth(first, 2))
    worker.release(growth(first, 1, offset=2))
    (second,) = draw(stage.worker("v.1"))
    stage.lose("a")
    (third,) = draw(worker)
    worker.finish(growth(third, 4))
    (outcome,) = outcomes_of(stage)
    assert told(outcome.ends) == [
        (1, 1, first.fence.draw_id, 0, 3, "released", "pool"),
        (1, 2, second.fence.draw_id, 3, 3, "lease_lost", "pool"),
        (1, 3, third.fence.draw_id, 3, 7, "succeeded", "end"),
    ]
    assert {end.pool for end in outcome.ends} == {POOL}
    assert [end.worker for end in outcome.ends] == ["w.1", "v.1", "w.1"]
    times = [time for end in outcome.ends for time in (end.started_at, end.ended_at)]
    assert times == sorted(times), "Redis's own clock, in order"
    assert times[-1] == outcome.ended_at
    assert outcome.dropped_ends == 0


def test_a_revoked_workers_attempt_is_noted(stage):
    worker = stage.worker("w.1")
    stage.place("a")
    draw(worker)
    stage.redis.sadd(stage.keys.revoked, "w")
    stage.pools.take_from_revoked(["w"])
    assert [end[-2:] for end in told(log_of(stage).ends)] == [("revoked", "pool")]


def test_what_a_newer_dispatch_takes_the_place_of_is_noted(stage):
    stage.place("a")
    (job,) = draw(stage.worker("w.1"))
    stage.place("a", dispatch=2, pool=OTHER)
    (end,) = log_of(stage).ends
    assert told([end]) == [(1, 1, job.fence.draw_id, 0, 0, "superseded", "database")]
    assert end.pool == POOL
    (again,) = draw(stage.worker("v.1"), pools=(OTHER,))
    stage.ports[-1].finish(growth(again, 1))
    (outcome,) = outcomes_of(stage)
    assert [(end.dispatch, end.pool) for end in outcome.ends] == [(1, POOL), (2, OTHER)]


def test_a_dispatch_that_was_handed_back_leaves_its_log_to_its_outcome(stage):
    worker = stage.worker("w.1")
    stage.place("a")
    (job,) = draw(worker)
    worker.fail(growth(job), kind="failed", error=ERROR)
    stage.place("a", dispatch=2)
    assert log_of(stage).ends == ()
    (job,) = draw(worker)
    worker.finish(growth(job, 1))
    assert [[end.dispatch for end in outcome.ends] for outcome in outcomes_of(stage)] == [[1], [2]]


def test_a_job_that_is_cancelled_while_it_waits_hands_its_log_over(stage):
    worker = stage.worker("w.1")
    stage.place("a")
    stage.place("never drawn")
    (job,) = draw(worker)
    worker.release(growth(job, 2), to_tail=True)
    assert stage.cancel("never drawn") == "closed"
    assert stage.outcomes() == [], "of what was never drawn there is nothing to tell"
    assert stage.cancel("a") == "closed"
    assert stage.cancel("a") == "closed"
    (outcome,) = outcomes_of(stage)
    assert (outcome.kind, [end.cause for end in outcome.ends]) == ("cancelled", ["released"])


def test_what_the_database_ends_while_it_runs_is_noted(stage):
    worker = stage.worker("w.1")
    stage.place("a")
    (job,) = draw(worker)
    stage.pools.seal_many([("a", JobState.CANCELLED, None)], 60_000)
    stage.pools.seal_many([("a", JobState.CANCELLED, None)], 60_000)
    worker.append(growth(job, 1), expect=WriteStatus.FENCED)
    (outcome,) = outcomes_of(stage)
    assert told(outcome.ends) == [(1, 1, job.fence.draw_id, 0, 0, "sealed", "end")]


def test_what_is_damaged_is_noted_where_it_can_be_read(stage):
    worker = stage.worker("w.1")
    stage.place("a")
    (job,) = draw(worker)
    stage.redis.hset(stage.keys.job("a"), "weight", "nan")
    worker.append(growth(job, 1), expect=WriteStatus.UNREADABLE)
    (outcome,) = outcomes_of(stage)
    assert [(end.cause, end.went) for end in outcome.ends] == [("unreadable", "database")]


def test_only_the_newest_are_kept_and_the_others_are_counted(stage):
    stage.place("a")
    workers = [stage.worker("w.1"), stage.worker("v.1")]
    for i in range(70):
        (job,) = draw(workers[i % 2])
        workers[i % 2].release(growth(job, 1))
    (job,) = draw(workers[0])
    workers[0].finish(growth(job))
    (outcome,) = outcomes_of(stage)
    assert [end.attempt for end in outcome.ends] == list(range(8, 72))
    assert outcome.dropped_ends == 7


def test_what_an_older_script_drew_and_ended_is_read(stage):
    worker = stage.worker("w.1")
    stage.place("a")
    (job,) = draw(worker)
    stage.redis.hdel(stage.keys.job("a"), "drawn_at", "drawn_offset")
    worker.finish(growth(job, 1))
    (outcome,) = outcomes_of(stage)
    assert [(end.started_at, end.offset) for end in outcome.ends] == [(0, 1)]


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b"\xff",
        b'{"dispatch":1}',
        b'{"dispatch":-1,"attempt":1,"draw_id":"w:1","pool":"p","run":0,"offset":0,"started_at":0,'
        b'"start_offset":0,"ended_at":0,"cause":"failed","went":"end"}',
        b'{"dispatch":1,"attempt":1,"draw_id":"w\\u0000:1","pool":"p","run":0,"offset":0,"started_at":0,'
        b'"start_offset":0,"ended_at":0,"cause":"failed","went":"end"}',
        b'{"dispatch":1,"attempt":1,"draw_id":"w\\ud800:1","pool":"p","run":0,"offset":0,"started_at":0,'
        b'"start_offset":0,"ended_at":0,"cause":"failed","went":"end"}',
    ],
)
def test_a_line_that_cannot_be_read_costs_itself(stage, line):
    worker = stage.worker("w.1")
    stage.place("a")
    (job,) = draw(worker)
    stage.redis.hset(stage.keys.job("a"), mapping={"log": line, "logged": 1})
    worker.finish(growth(job, 1))
    (outcome,) = outcomes_of(stage)
    assert ([end.cause for end in outcome.ends], outcome.dropped_ends) == (["succeeded"], 1)


# A model of one job: what each step says of the attempt that runs.


@dataclass
class Running:
    job: object
    worker: object
    offset: int


WAITING = ("draw", "draw", "draw", "place")
RUNNING = (
    "append",
    "lose",
    "lose",
    "lose",
    "release",
    "release to tail",
    "withdraw",
    "place",
    "fail",
    "finish",
)


class Model:
    """One job, two workers, and the list of ends that there must be."""

    def __init__(self, stage, job_id):
        self.stage, self.job_id = stage, job_id
        self.workers = [stage.worker(f"w{job_id}.1"), stage.worker(f"v{job_id}.1")]
        self.running = None
        self.asked = False
        self.dispatch = 0
        self.expected = []
        self.is_over = False
        self.turn = 0

    def end(self, cause, went):
        fence = self.running.job.fence
        start = self.running.job.offset
        self.expected.append(
            (fence.dispatch, fence.attempt, fence.draw_id, start, self.running.offset, cause, went)
        )
        self.running = None

    def carry_out(self, chance):
        """Carry out one of the steps that may come now."""
        if self.is_over:
            return
        steps = (*RUNNING, "end as told" if self.asked else "cancel") if self.running else WAITING
        getattr(self, "_" + steps[chance % len(steps)].replace(" ", "_"))()

    def _place(self):
        self.place()

    def place(self):
        self.dispatch += 1
        self.stage.place(self.job_id, dispatch=self.dispatch, pool=self.pool())
        self.asked = False
        if self.running:
            self.end("superseded", "database")

    def pool(self):
        return f"pool.{self.job_id}"

    def _draw(self):
        self.turn += 1
        worker = self.workers[self.turn % 2]
        for job in draw(worker, pools=(self.pool(),)):
            self.running = Running(job, worker, job.offset)

    def _append(self):
        if not self.asked:
            self.running.worker.append(growth(self.running.job, 1, offset=self.running.offset))
            self.running.offset += 1

    def _returned(self, cause):
        if self.asked:
            self.end(cause, "end")
            self.is_over = True
        else:
            self.end(cause, "pool")

    def _lose(self):
        is_alone = self.stage.field(self.job_id, "alone") == "1"
        self.stage.lose(self.job_id)
        if is_alone:
            self.end("lease_lost", "end")
            self.is_over = True
        else:
            self._returned("lease_lost")

    def _release(self, to_tail=False):
        last = growth(self.running.job, 2, offset=self.running.offset)
        self.running.worker.release(last, to_tail=to_tail)
        self.running.offset += 2
        self._returned("released")

    def _release_to_tail(self):
        self._release(to_tail=True)

    def _withdraw(self):
        assert self.stage.pools.withdraw_many([(self.job_id, self.dispatch)], running=True) == ["withdrawn"]
        self.end("withdrawn", "database")

    def _fail(self):
        last = growth(self.running.job, offset=self.running.offset)
        self.running.worker.fail(last, kind="failed", error=ERROR)
        self.end("failed", "database")

    def _finish(self):
        self.running.worker.finish(growth(self.running.job, 1, offset=self.running.offset))
        self.running.offset += 1
        self.end("succeeded", "end")
        self.is_over = True

    def _cancel(self):
        assert self.stage.cancel(self.job_id) == "running"
        self.asked = True

    def _end_as_told(self):
        last = growth(self.running.job, offset=self.running.offset)
        self.running.worker.fail(last, kind="cancelled", error=ERROR)
        self.end("cancelled", "end")
        self.is_over = True

    def close(self):
        if not self.is_over and self.running:
            self._finish()
        elif not self.is_over and self.dispatch:
            self.stage.cancel(self.job_id)


def check_histories(stage, **more):
    numbers = iter(range(10**6))

    @settings(max_examples=60, deadline=None, database=None, report_multiple_bugs=False, **more)
    @given(st.lists(st.integers(0, 131), min_size=4, max_size=14))
    def check(chances):
        stage.redis.delete(stage.keys.outcomes)
        model = Model(stage, f"{next(numbers)}")
        model.place()
        for chance in chances:
            model.carry_out(chance)
        model.close()
        noted = {end for outcome in outcomes_of(stage) for end in told(outcome.ends)}
        assert sorted(noted) == sorted(model.expected)

    check()


def test_the_history_is_what_happened(stage):
    check_histories(stage)


SILENT = "local _"
MUTE = {
    "finish": ("log_attempt(id, now, 'succeeded', 'end')", SILENT),
    "fail": ("log_attempt(id, now, kind, kind == 'failed' and 'database' or 'end')", SILENT),
    "withdraw": ("log_attempt(id, now_ms(), 'withdrawn', 'database')", SILENT),
    "place": ("log_attempt(id, now, 'superseded', 'database')", SILENT),
    "release": ("log_attempt(id, now, cause, 'pool', evidence)", SILENT),
    "expire": (", 'lease_lost')", ")"),
    "cancel": ("write_outcome(id, kind, now)", SILENT),
}
"""In each script what tells an end, and what stands in its place."""


@pytest.mark.mutants
@pytest.mark.parametrize("script", MUTE)
def test_an_end_that_is_not_noted_is_missed(stage, monkeypatch, script):
    plant(monkeypatch, (script, *MUTE[script]))
    with pytest.raises(AssertionError):
        check_histories(stage, derandomize=True, phases=(Phase.generate,))
