"""Waiting jobs are placed by model: what waits for a dead model costs nothing and holds up nobody."""

from collections import Counter

import pytest
from sqlalchemy import event

from support.boundless_pools import BoundlessPools, choice_of
from support.databases import (
    DEMO,
    NOW,
    POOL,
    accept,
    make_tenants,
    new_job,
    outcome,
    settle_each,
    state_of,
    write,
)
from tether.loops import IDLE
from tether.orchestrator.postponements import AT_ONCE, GAP_MS, POSTPONED_MS
from tether.orchestrator.waiting import BATCH, SHUT_MS, PlaceWaiting
from tether.outcomes import OutcomeKind
from tether.scheduling.kept_decisions import ChosenPools
from tether.scheduling.reservations import ReservationManager
from tether.store.end_requests import Request, request
from tether.store.waiting_jobs import KeptModel, due_retry_ids, next_waiting

DEAD = KeptModel("dead", "1")
RETRIED_MS = 60_000
MINUTE_MS = 60_000


class Fleet(BoundlessPools):
    """A scheduler with a pool for every model that is served, and the place that jobs are handed over to."""

    def __init__(self, *served, needs=()):
        self.served = list(served)
        self.needs = list(needs)
        self.placed = []
        self.has_room = True
        self.barred = set()
        self.looks = 0
        self.shut = False

    def served_models(self):
        return self.served

    def served_needs(self, with_needs):
        models = with_needs({kept.model for kept in self.needs})
        return [kept for kept in self.needs if kept.model in models]

    def choose_pools(self, jobs):
        self.looks += len(jobs)
        if self.shut:
            return [ChosenPools((), is_shut=True) for _ in jobs]
        return [
            choice_of(POOL if self.has_room and each.job.tenant_id not in self.barred else None)
            for each in jobs
        ]

    def hand_over(self, dispatches):
        self.placed += [dispatch.job_id for dispatch in dispatches]


def step_of(store, fleet, now_ms=NOW):
    fleet.claim = ReservationManager(store, None).claim
    return PlaceWaiting(store, fleet, fleet, now_ms=lambda: now_ms)


def parked(first, count, **changes):
    return [new_job(number, pool=None, **changes) for number in range(first, first + count)]


def run(step):
    """Run the step until it has nothing more to do at once. Return after how long it wants to be called."""
    for _ in range(100):
        if pause := step():
            return pause
    raise AssertionError("the step never comes to rest")


def statements(store):
    """Counts what is asked of the database from now on."""
    found = []
    for engine in (store._readers, store._writers):
        event.listen(engine, "before_cursor_execute", lambda *call: found.append(call[2]))
    return found


def test_a_job_is_placed_past_any_number_that_wait_for_a_dead_model(store):
    accept(store, *parked(0, 3 * BATCH, model="dead"))
    accept(store, *parked(5_000, 1))
    fleet = Fleet(DEMO)
    assert run(step_of(store, fleet)) == IDLE
    assert fleet.placed == ["job-005000"]


def test_a_step_asks_the_same_of_the_database_however_many_wait_for_a_dead_model(store):
    counts = []
    for number in (1, 2 * BATCH):
        accept(store, *parked(number * 10, number, model="dead"))
        asked = statements(store)
        run(step_of(store, Fleet(DEMO)))
        counts.append(len([text for text in asked if "jobs" in text]))
        assert not [text for text in asked if "body" in text], "payloads were read"
    assert counts[0] == counts[1]


def test_all_are_placed_once_their_model_is_served_the_longest_due_first(store):
    accept(store, *parked(0, BATCH + 7, model="dead"))
    fleet = Fleet()
    step = step_of(store, fleet)
    assert run(step) == IDLE
    fleet.served = [DEAD]
    run(step)
    assert fleet.placed == [f"job-{number:06}" for number in range(BATCH + 7)]


def test_a_long_queue_for_one_model_holds_up_no_other(store):
    accept(store, *parked(0, 3 * BATCH, model="dead"))
    accept(store, *parked(5_000, 1))
    fleet = Fleet(DEAD, DEMO)
    step_of(store, fleet)()
    assert Counter(fleet.placed)["job-005000"] == 1
    assert len(fleet.placed) == BATCH + 1


def test_a_job_of_a_served_model_that_no_pool_takes_is_postponed_and_passed(store):
    accept(store, *parked(0, 2))
    fleet = Fleet(DEMO)
    fleet.has_room = False
    assert run(step_of(store, fleet)) == POSTPONED_MS / 1000
    fleet.has_room = True
    accept(store, *parked(2, 1))
    run(step_of(store, fleet))
    assert fleet.placed == ["job-000002"]
    run(step_of(store, fleet, NOW + POSTPONED_MS))
    assert sorted(fleet.placed) == ["job-000000", "job-000001", "job-000002"]


def test_what_no_pool_takes_is_looked_at_no_oftener_however_much_it_is_and_at_once_when_one_does(store):
    make_tenants(store, "barred", "other")
    accept(store, *parked(0, 2 * AT_ONCE + 40, tenant_id="barred"), *parked(5_000, 1, tenant_id="other"))
    delayed = parked(6_000, 1, tenant_id="barred", not_before=NOW + MINUTE_MS)
    accept(store, *delayed)
    fleet, now = Fleet(DEMO), [NOW]
    fleet.barred = {"barred"}
    step = step_of(store, fleet)
    step._now_ms = lambda: now[0]
    run(step)
    assert fleet.placed == ["job-005000"]
    fleet.looks = 0
    now[0] += POSTPONED_MS
    run(step)
    assert AT_ONCE <= fleet.looks <= AT_ONCE + 1
    assert fleet.placed == ["job-005000"]

    fleet.barred = set()
    now[0] += GAP_MS
    for _ in range(5):
        run(step)
    assert len(fleet.placed) == 2 * AT_ONCE + 40 + 1
    assert "job-006000" not in fleet.placed


def test_of_what_a_breaker_keeps_back_a_job_of_each_tenant_is_at_hand_for_its_turn(store):
    make_tenants(store, "one", "two")
    accept(store, *parked(0, 20, tenant_id="one"), *parked(20, 20, tenant_id="two"))
    fleet, now = Fleet(DEMO), [NOW]
    fleet.shut = True
    step = step_of(store, fleet)
    step._now_ms = lambda: now[0]
    assert run(step) == SHUT_MS / 1000
    fleet.looks = 0
    now[0] += SHUT_MS
    run(step)
    assert fleet.looks == 2
    now[0] += SHUT_MS
    fleet.shut = False
    run(step)
    assert len(fleet.placed) >= 2


def test_a_retry_whose_model_is_gone_is_parked_once_and_placed_when_it_is_back(store):
    accept(store, new_job(1))
    settle_each(store, outcome(1, OutcomeKind.FAILED))
    fleet = Fleet()
    step = step_of(store, fleet, NOW + RETRIED_MS)
    assert run(step) == IDLE
    assert state_of(store, 1) == ("parked", 1)
    assert store.read(due_retry_ids, NOW + RETRIED_MS, 10) == []
    fleet.served = [DEMO]
    run(step)
    assert fleet.placed == ["job-000001"]


def test_a_job_that_may_not_start_yet_is_placed_when_it_may(store):
    accept(store, *parked(0, 1, not_before=NOW + 500))
    fleet = Fleet(DEMO)
    assert run(step_of(store, fleet)) == 0.5
    assert fleet.placed == []
    run(step_of(store, fleet, NOW + 500))
    assert fleet.placed == ["job-000000"]


def test_a_job_that_shall_end_is_not_waited_for(store):
    accept(store, *parked(0, 1))
    assert None not in write(store, request, Request(None, "job-000000", "cancelled", NOW))
    assert store.read(next_waiting, [DEMO]) == {}
    assert run(step_of(store, Fleet(DEMO))) == IDLE


@pytest.mark.parametrize("served", [[], [KeptModel("another", "1")], [KeptModel("demo", "2")]])
def test_what_is_not_served_has_no_next_time(store, served):
    accept(store, *parked(0, 1))
    assert store.read(next_waiting, served) == {}
    assert store.read(next_waiting, [*served, DEMO]) == {DEMO: NOW}


IN_EU, IN_US = KeptModel("demo", "1", "region=eu"), KeptModel("demo", "1", "region=us")


def test_jobs_for_a_region_that_nobody_serves_cost_nothing_however_many_they_are(store):
    counts = []
    for number in (1, 2 * BATCH):
        accept(store, *parked(number * 10, number, region="eu"))
        asked = statements(store)
        assert run(step_of(store, Fleet(DEMO, needs=[IN_US]))) == IDLE
        counts.append(len([text for text in asked if "jobs" in text]))
        assert not [text for text in asked if "body" in text], "payloads were read"
    assert counts[0] == counts[1]


def test_jobs_for_a_region_that_nobody_serves_hold_up_none_of_their_model(store):
    accept(store, *parked(0, 3 * BATCH, region="eu"))
    accept(store, *parked(5_000, 1), *parked(5_001, 1, region="us"))
    fleet = Fleet(DEMO, needs=[IN_US])
    step_of(store, fleet)()
    assert sorted(fleet.placed) == ["job-005000", "job-005001"]


def test_a_job_for_a_region_is_placed_once_it_is_served_and_starves_behind_none_of_its_model(store):
    accept(store, *parked(0, 3 * BATCH))
    accept(store, *parked(5_000, 1, region="eu"))
    fleet = Fleet(DEMO)
    run(step_of(store, fleet))
    assert "job-005000" not in fleet.placed
    accept(store, *parked(6_000, 3 * BATCH))
    fleet.needs = [IN_EU]
    step_of(store, fleet)()
    assert "job-005000" in fleet.placed
    assert "job-006000" in fleet.placed


def test_jobs_that_need_more_memory_than_any_pool_has_are_never_read(store):
    accept(store, *parked(0, 2 * BATCH, min_vram=200))
    accept(store, *parked(5_000, 1, min_vram=80), *parked(5_001, 1, min_vram=200, prefer="min_vram"))
    fleet = Fleet(DEMO, needs=[KeptModel("demo", "1", "vram", 80)])
    assert run(step_of(store, fleet)) == IDLE
    assert sorted(fleet.placed) == ["job-005000", "job-005001"]
    fleet.needs = [KeptModel("demo", "1", "vram", 200)]
    run(step_of(store, fleet))
    assert len(fleet.placed) == 2 * BATCH + 2


def test_a_job_that_takes_any_version_is_placed_where_another_is_served(store):
    accept(store, *parked(0, 1, any_version=True), *parked(1, 1))
    fleet = Fleet(needs=[KeptModel("demo", "1", "any")])
    assert run(step_of(store, fleet)) == IDLE
    assert fleet.placed == ["job-000000"]


def test_a_retry_whose_needs_nobody_meets_is_parked_and_one_whose_needs_are_met_is_placed(store):
    asked = (
        {"region": "eu"},
        {"region": "us"},
        {"min_vram": 9},
        {"min_vram": 7},
        {"region": "eu", "prefer": "region"},
    )
    for number, needs in enumerate(asked):
        accept(store, new_job(number, **needs))
        settle_each(store, outcome(number, OutcomeKind.FAILED))
    fleet = Fleet(DEMO, needs=[IN_US, KeptModel("demo", "1", "vram", 8)])
    assert run(step_of(store, fleet, NOW + RETRIED_MS)) == IDLE
    assert sorted(fleet.placed) == ["job-000001", "job-000003", "job-000004"]
    assert [state_of(store, number)[0] for number in (0, 2)] == ["parked", "parked"]
    assert store.read(due_retry_ids, NOW + RETRIED_MS, 10) == []


def test_a_job_with_needs_that_may_not_start_yet_is_placed_when_it_may(store):
    accept(store, *parked(0, 1, not_before=NOW + 500, region="eu", min_vram=3))
    fleet = Fleet(DEMO, needs=[KeptModel("demo", "1", "region=eu vram", 3)])
    assert run(step_of(store, fleet)) == 0.5
    run(step_of(store, fleet, NOW + 500))
    assert fleet.placed == ["job-000000"]
