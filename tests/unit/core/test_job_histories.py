"""How a history is put together from what the database has and what Redis knows."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from tether.attempts import AttemptEnd
from tether.broker.pools.attempt_log import AttemptLog
from tether.broker.pools.live_attempts import LiveAttempts
from tether.core.job_histories import history_of
from tether.jobs import JobError, JobState, Priority
from tether.outcomes import Fence

NOW = 1_800_000_000_000
POOL = "gpu.cpu.local.demo-00000000"


def row(state=JobState.PLACED, **changes):
    given = {"dispatch": 1, "pool": POOL, "updated_at": NOW, "finished_at": None, "due_at": 0} | changes
    return SimpleNamespace(job_id="job", state=state, **given)


def known(attempt=1, **changes):
    return {
        "dispatch": 1,
        "attempt": attempt,
        "draw_id": f"w.1:{attempt}",
        "worker": "w.1",
        "kind": "",
        "run": 0,
        "offset": attempt,
        "error": None,
        "ended_at": NOW + attempt,
        "outcome_at": None,
        "dropped": 0,
        "pool": POOL,
        "started_at": NOW,
        "start_offset": 0,
        "cause": "released",
        "went": "pool",
        "evidence": None,
    } | changes


def end(attempt, **changes):
    given = {"run": 0, "offset": attempt, "started_at": NOW, "start_offset": 0, "ended_at": NOW + attempt}
    given |= {"cause": "lease_lost", "went": "pool", "pool": POOL} | changes
    return AttemptEnd(dispatch=1, attempt=attempt, draw_id=f"w.1:{attempt}", **given)


def live(state="running", attempt=3, ends=(), **changes):
    given = {"started_at": NOW + 30, "start_offset": 2, "placed_at": NOW, "offset": 7, "pool": POOL} | changes
    fence = Fence(1, attempt, f"w.1:{attempt}")
    return LiveAttempts(state=state, fence=fence, worker="w.1", log=AttemptLog(tuple(ends)), **given)


def history(job, rows=(), in_redis=None, state=None):
    return history_of(job, SimpleNamespace(state=state or job.state, priority=Priority.BATCH), rows, in_redis)


def told(found):
    return [(each.attempt, each.cause) for each in found.attempts]


def test_what_redis_noted_stands_between_the_rows_and_the_attempt_that_runs():
    found = history(row(), [known(1)], live(ends=[end(1), end(2)]), JobState.RUNNING)
    assert told(found) == [(1, "released"), (2, "lease_lost"), (3, "running")]
    running = found.attempts[-1]
    assert (running.started_at, running.ended_at, running.start_offset, running.offset) == (
        NOW + 30,
        None,
        2,
        7,
    )
    assert (found.state, found.since) == (JobState.RUNNING, NOW + 30)


def test_a_row_of_which_only_the_outcome_is_known_is_completed():
    older = known(1, kind="failed", cause=None, went=None, pool=None, started_at=None, start_offset=None)
    alone = history(row(), [older]).attempts[0]
    assert (alone.cause, alone.outcome, alone.started_at, alone.start_offset) == (None, "failed", None, None)
    whole = history(row(), [older], live("placed", 1, [end(1)])).attempts[0]
    assert (whole.cause, whole.outcome, whole.pool) == ("lease_lost", "failed", POOL)


def test_an_attempt_that_has_ended_does_not_run():
    found = history(row(), [known(3)], live())
    assert told(found) == [(3, "released")]


def test_a_dispatch_that_was_never_drawn_is_no_attempt():
    assert told(history(row(JobState.PARKED), [known(0, draw_id="", kind="withdrawn", cause=None)])) == []


@pytest.mark.parametrize(
    ("job", "in_redis", "state", "since", "due_at"),
    [
        (row(JobState.PARKED), None, None, NOW, None),
        (row(JobState.WAITING_RETRY, due_at=NOW + 9), None, None, NOW, NOW + 9),
        (row(JobState.SUCCEEDED, finished_at=NOW + 5, due_at=NOW), None, None, NOW + 5, None),
        (row(), live("placed", 2, [end(2)], placed_at=NOW + 1), JobState.PLACED, NOW + 2, None),
        (row(), live("placed", 0, placed_at=NOW + 1), JobState.PLACED, NOW + 1, None),
        (row(dispatch=2), live("placed", 0, placed_at=NOW + 1), JobState.PLACED, NOW, None),
        (row(), live(started_at=0), JobState.RUNNING, NOW, None),
    ],
)
def test_since_when_a_job_is_where_it_is(job, in_redis, state, since, due_at):
    found = history(job, [], in_redis, state)
    assert (found.since, found.due_at) == (since, due_at)


def test_what_cannot_be_read_of_one_attempt_hides_no_other():
    found = history(row(), [known(1, error="{", evidence="["), known(2, error='{"code":"c","message":"m"}')])
    assert [(each.error, each.evidence) for each in found.attempts] == [
        (None, {}),
        (JobError("c", "m"), {}),
    ]


def test_what_is_no_longer_known_is_counted():
    in_redis = replace(live(), log=AttemptLog((end(2),), 3))
    assert history(row(), [known(1, dropped=2)], in_redis).dropped == 3
