"""How a job's placements are put together from what is kept of its hand-overs and what came of them."""

import pytest

from tether.core.job_placements import placements_of
from tether.explanations import PlacementOrigin
from tether.histories import AttemptRecord, JobHistory
from tether.jobs import JobState
from tether.store.decision_texts import choice_text

NOW = 1_800_000_000_000
POOL = "gpu.cpu.local.demo-00000000"
ABLE = (POOL, 1_500, 500, 2_000, 300, 4, 20.0, False, 0, (1.0, 0.5))
CHOICE = choice_text(
    {"warm": 5.0, "region": 2.5}, 1.0, [ABLE], [("far", "region", "is in region us, not eu")]
)


def row(dispatch=1, **changes):
    kept = {"job_id": "job", "dispatch": dispatch, "decided_at": NOW, "pool": POOL, "choice": CHOICE}
    return kept | {"wait_ms": 500, "total_ms": 2_000} | changes


def attempt(dispatch=1, number=1, started_at=NOW + 900, **changes):
    return AttemptRecord(
        dispatch=dispatch, attempt=number, worker="w.1", pool=POOL, started_at=started_at, **changes
    )


def placed(rows, attempts=(), dispatch=1, not_before=0, state=JobState.RUNNING):
    history = JobHistory(
        job_id="job",
        state=state,
        dispatch=dispatch,
        pool=POOL if dispatch else None,
        since=NOW,
        due_at=None,
        attempts=tuple(attempts),
    )
    return placements_of(history, rows, not_before).placements


def test_a_hand_over_tells_its_choice_what_was_expected_and_how_long_it_took():
    (one,) = placed([row()], [attempt(), attempt(number=2, started_at=NOW + 5_000)])
    assert (one.dispatch, one.origin, one.pool, one.decided_at) == (1, PlacementOrigin.CHOSEN, POOL, NOW)
    assert (one.wait_seconds, one.total_seconds) == (0.5, 2.0)
    assert (one.begun_at, one.waited_seconds) == (NOW + 900, 0.9)
    able, unable = one.explanation.pools
    assert (able.pool, able.cost_seconds, able.ahead, able.slots) == (POOL, 1.5, 3.0, 4)
    assert able.terms == {"warm": 1.0, "region": 0.5}
    assert (unable.pool, unable.excluded, unable.words) == ("far", "region", "is in region us, not eu")
    assert one.explanation.worth == {"warm": 5.0, "region": 2.5}


def test_a_wait_counts_from_when_the_job_might_start():
    (one,) = placed([row()], [attempt(started_at=NOW + 9_000)], not_before=NOW + 8_000)
    assert one.waited_seconds == 1.0
    (late,) = placed([row(decided_at=NOW + 8_500)], [attempt(started_at=NOW + 9_000)], not_before=NOW + 8_000)
    assert late.waited_seconds == 0.5


def test_clocks_that_differ_make_no_wait_below_zero():
    (one,) = placed([row()], [attempt(started_at=NOW - 3)])
    assert one.waited_seconds == 0.0


def test_a_job_that_nobody_has_begun_has_not_waited_to_any_end():
    (one,) = placed([row()], state=JobState.PLACED)
    assert (one.begun_at, one.waited_seconds) == (None, None)


def test_a_parked_job_tells_why_of_the_hand_over_to_come():
    rows = [row(), row(2, pool=None, wait_ms=None, total_ms=None)]
    first, last = placed(rows, [attempt()], state=JobState.PARKED)
    assert (first.origin, last.origin) == (PlacementOrigin.CHOSEN, PlacementOrigin.UNSERVED)
    assert (last.dispatch, last.pool, last.wait_seconds) == (2, None, None)
    assert last.explanation.pool is None


def test_what_a_rebuild_repeated_has_no_choice():
    first, second = placed([row(), row(2, choice="", wait_ms=None, total_ms=None)], dispatch=2)
    assert (second.origin, second.explanation, second.pool) == (PlacementOrigin.REPEATED, None, POOL)
    assert first.origin is PlacementOrigin.CHOSEN


def test_a_hand_over_of_an_older_version_is_told_as_far_as_it_is_known():
    first, second = placed([row(2)], [attempt()], dispatch=2)
    assert (first.dispatch, first.origin, first.pool, first.begun_at) == (
        1,
        PlacementOrigin.UNKNOWN,
        POOL,
        NOW + 900,
    )
    assert (first.explanation, first.waited_seconds) == (None, None)
    assert second.origin is PlacementOrigin.CHOSEN
    assert placed([], dispatch=0) == ()


@pytest.mark.parametrize(
    "damage",
    [
        {"choice": "{"},
        {"choice": "[9]"},
        {"choice": None},
        {"choice": b"\xff"},
    ],
)
def test_an_unreadable_choice_costs_itself_alone(damage):
    first, second = placed([row(**damage), row(2)], [attempt()], dispatch=2)
    assert (first.origin, first.explanation) == (PlacementOrigin.UNREADABLE, None)
    assert (first.pool, first.wait_seconds, first.waited_seconds) == (POOL, 0.5, 0.9)
    assert second.explanation is not None


def test_numbers_that_are_none_are_not_told():
    (one,) = placed([row(decided_at="then", wait_ms="long", total_ms=None, pool=7)], [attempt()])
    assert (one.decided_at, one.wait_seconds, one.total_seconds, one.waited_seconds) == (None,) * 4
    # A row whose number is none is of no hand-over.
    (unknown,) = placed([row("first")], [attempt()])
    assert unknown.origin is PlacementOrigin.UNKNOWN
