"""Hand-over down: the outbox, what waits, what Redis should have."""

from support.databases import (
    NOW,
    OTHER_POOL,
    POOL,
    accept,
    all_held,
    due,
    new_job,
    outbox,
    outcome,
    settle,
    settle_each,
    state_of,
    waiting_at,
    write,
)
from tether.jobs import JobState, Priority
from tether.outcomes import OutcomeKind
from tether.store.admissions import SUBMITTER_GRACE_MS
from tether.store.end_requests import Request, request
from tether.store.placements import (
    NotPlaced,
    PlacedDispatch,
    Placement,
    RecordResult,
    placed_jobs,
    placed_rows,
    raise_dispatches,
    record_placed,
    replace,
    states,
)
from tether.store.waiting_jobs import Postponement, postpone

RECORDED, OUTDATED, STALE = RecordResult
MOVED_ON = NotPlaced.MOVED_ON


def placed(number, dispatch=1, priority=Priority.STANDARD):
    return PlacedDispatch(f"job-{number:06}", dispatch, priority)


def test_a_recorded_hand_over_leaves_the_outbox(store):
    accept(store, new_job(1), new_job(2))
    given = [placed(1), placed(2, dispatch=2), placed(3), placed(2, priority=Priority.BATCH)]
    assert write(store, record_placed, *given) == [RECORDED, STALE, STALE, OUTDATED]
    assert state_of(store, 1) == ("placed", 1)
    assert [each[0] for each in outbox(store)] == ["job-000002"]
    assert write(store, record_placed, placed(1)) == [RECORDED]
    assert write(store, record_placed, placed(1, priority=Priority.BATCH)) == [OUTDATED]
    assert store.read(states, ["job-000001", "nobody"]) == {"job-000001": (JobState.PLACED, 1)}


def test_due_answers_all_that_a_placement_needs(store):
    accept(store, new_job(1, deadline=5, weight=2.5, priority="batch"))
    [found] = due(store, NOW + SUBMITTER_GRACE_MS)
    assert (found.job_id, found.dispatch, found.pool, found.job.tenant_id) == (
        "job-000001",
        1,
        POOL,
        "default",
    )
    assert (found.job.priority, found.job.weight, found.job.deadline, found.job.cost) == (
        Priority.BATCH,
        2.5,
        5,
        7,
    )
    assert (found.job.payload, found.requested) == ('{"v":1}', None)


def test_placed_jobs_come_in_pages_by_job_id_without_their_payloads(store):
    accept(store, *(new_job(i) for i in range(5)))
    assert write(store, record_placed, *(placed(i) for i in (4, 0, 2))) == [RECORDED] * 3
    assert store.read(placed_jobs, "", 2) == [placed(0), placed(2)]
    assert store.read(placed_jobs, "job-000002", 2) == [placed(4)]


def test_placed_rows_are_those_that_are_redis_s_still(store):
    accept(store, *(new_job(i) for i in range(3)))
    assert write(store, record_placed, placed(0), placed(2)) == [RECORDED] * 2
    found = store.read(placed_rows, ["job-000002", "job-000001", "job-000000", "nobody"])
    assert [(each.job_id, each.job.payload) for each in found] == [
        ("job-000000", '{"v":1}'),
        ("job-000002", '{"v":1}'),
    ]


def test_a_waiting_job_is_replaced_once_and_its_hold_moves(store):
    accept(store, new_job(1), new_job(2, pool=None))
    settle_each(store, outcome(1, OutcomeKind.FAILED))
    # What waits for its next attempt keeps nobody out of the pool.
    assert all_held(store) == {("quota", "default"): 2}
    places = [
        Placement("job-000001", 1, OTHER_POOL, NOW),
        Placement("job-000001", 1, POOL, NOW),
        Placement("job-000002", 0, OTHER_POOL, NOW),
        Placement("nobody", 0, POOL, NOW),
    ]
    assert write(store, replace, *places) == [2, MOVED_ON, 1, MOVED_ON]
    assert write(store, replace, *places) == [MOVED_ON] * 4
    assert state_of(store, 1) == ("accepted", 2)
    assert outbox(store) == [("job-000001", 2, OTHER_POOL, NOW), ("job-000002", 1, OTHER_POOL, NOW)]
    assert all_held(store) == {("quota", "default"): 2, ("capacity", OTHER_POOL): 2}


def test_a_job_whose_end_was_asked_for_is_not_placed_again(store):
    accept(store, new_job(1, pool=None))
    assert None not in write(store, request, Request(None, "job-000001", "cancelled", NOW))
    assert waiting_at(store, NOW) == []
    assert write(store, replace, Placement("job-000001", 0, POOL, NOW)) == [MOVED_ON]


def test_what_no_pool_can_serve_is_parked_for_later(store):
    accept(store, new_job(1))
    settle_each(store, outcome(1, OutcomeKind.FAILED))
    assert write(store, postpone, Postponement("job-000001", 1, NOW + 5_000, NOW)) == [True]
    assert state_of(store, 1) == ("parked", 1)
    assert all_held(store) == {("quota", "default"): 1}
    assert waiting_at(store, NOW + 4_999) == []
    assert [each.dispatch for each in waiting_at(store, NOW + 5_000)] == [1]
    assert write(store, postpone, Postponement("job-000001", 0, NOW, NOW)) == [False]


def test_a_rebuild_raises_the_dispatch_of_what_is_redis_s(store):
    accept(store, *(new_job(i) for i in range(4)), new_job(4, pool=None))
    assert write(store, record_placed, placed(0)) == [RECORDED]
    settle_each(store, outcome(2), outcome(3, OutcomeKind.FAILED))
    ids = [f"job-{i:06}" for i in range(5)] + ["nobody"]
    raised = store.write_alone(raise_dispatches, ids, NOW + 1).result()
    assert raised == [2, 2, None, None, None, None]
    assert [each[:2] for each in outbox(store)] == [("job-000000", 2), ("job-000001", 2)]
    assert state_of(store, 0) == ("accepted", 2)
    assert [each.kind for each in settle(store, outcome(0))] == ["stale"]
