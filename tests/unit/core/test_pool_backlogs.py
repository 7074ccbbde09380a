"""Which pools a worker is the last one of, and what becomes of their jobs without it."""

import pytest

from support.presences import KEY, OTHER_KEY, apply, presence
from tether.core.last_workers import last_worker_text
from tether.core.pool_backlogs import last_worker_pools
from tether.discovery.announcements.presence import WorkerState
from tether.discovery.fleet.fleet import Fleet, judged

WORKER, OTHER = presence().worker_id, presence(OTHER_KEY).worker_id
(POOL,) = presence().pools


def fleet_of(*presences):
    fleet = Fleet()
    for one in presences:
        fleet = apply(fleet, one, 0)
    return fleet


def test_a_worker_is_the_last_of_a_pool_that_nobody_else_serves():
    (last,) = last_worker_pools(fleet_of(presence()), WORKER, {POOL: 3})
    assert (last.pool, last.model, last.version, last.waiting) == (POOL, "tiny", "1", 3)
    assert not last.is_served_elsewhere
    assert last_worker_text(last, grace_ms=15_000, parking_ms=60_000) == (
        f"it is the last worker of pool {POOL}. 3 jobs wait there; no other worker serves model tiny 1: its "
        "jobs, new ones too, are parked after 60 s, and wait until one does"
    )


def test_where_another_pool_serves_the_model_its_jobs_go_there():
    (last,) = last_worker_pools(fleet_of(presence(), presence(OTHER_KEY, region="eu")), WORKER, {POOL: 1})
    assert last.is_served_elsewhere
    assert last_worker_text(last, grace_ms=15_000, parking_ms=60_000) == (
        f"it is the last worker of pool {POOL}. 1 job waits there; other pools serve model tiny 1: they get "
        "what waits after 15 s"
    )


def test_of_two_workers_none_is_the_last():
    assert last_worker_pools(fleet_of(presence(), presence(OTHER_KEY)), WORKER, {}) == ()


@pytest.mark.parametrize("why", ["silent", "draining"])
def test_who_takes_no_jobs_does_not_count_beside_it(why):
    state = WorkerState.DRAINING if why == "draining" else WorkerState.SERVING
    fleet = fleet_of(presence(KEY), presence(OTHER_KEY, state=state))
    if why == "silent":
        fleet = judged(fleet, {OTHER: frozenset([POOL])})
    assert [last.pool for last in last_worker_pools(fleet, WORKER, {})] == [POOL]
    assert last_worker_pools(fleet, OTHER, {}) == ()


def test_a_worker_that_is_not_there_is_the_last_of_nothing():
    assert last_worker_pools(Fleet(), WORKER, {POOL: 1}) == ()
