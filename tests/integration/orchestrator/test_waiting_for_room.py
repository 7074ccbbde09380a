"""Jobs that wait in the database since the pools of their model take no more."""

import threading

import pytest
from sqlalchemy import event

from support.boundless_pools import BoundlessPools
from support.databases import DEMO, NOW, POOL, accept, all_held, make_tenants, new_job, outcome, settle_each
from tether.jobs import Priority
from tether.loops import IDLE
from tether.orchestrator import waiting_turns
from tether.orchestrator.waiting import BATCH, SHORT_SECONDS, PlaceWaiting
from tether.orchestrator.waiting_turns import NEVER_LATE, LateStandard
from tether.scheduling.kept_decisions import ChosenPools
from tether.scheduling.pool_bounds import BATCH_AGE_MS, bound_of_class
from tether.scheduling.reservations import ReservationManager
from tether.store.capacity import Claim, room_of_tenant, share_name
from tether.store.holds import CAPACITY, depths, shares
from tether.store.waiting_jobs import KeptModel

OTHER = KeptModel("other", "1")


class Bounded(BoundlessPools):
    """A scheduler with one pool, which takes so many jobs."""

    def __init__(self, store, bound, late=NEVER_LATE):
        self.store = store
        self.bound = bound
        self.placed = []
        self.claim = ReservationManager(store, None).claim
        self.short_of_room = threading.Event()
        self.step = PlaceWaiting(
            store, self, self, now_ms=lambda: NOW, short_of_room=self.short_of_room, late=late
        )

    def served_models(self):
        return [DEMO]

    def served_needs(self, with_needs):
        return []

    def held(self):
        return self.store.read(depths).get(POOL, 0)

    def room_for(self, kept):
        return max(0, self.bound - self.held())

    def rooms_of_tenants(self, kept, tenants, priority):
        of = self.store.read(shares, [share_name(POOL, tenant) for tenant in tenants])
        bound = bound_of_class(self.bound, priority)
        return {t: room_of_tenant(bound, self.held(), of.get(share_name(POOL, t), 0)) for t in tenants}

    def choose_pools(self, jobs):
        return [ChosenPools((Claim(POOL, bound_of_class(self.bound, counts_as(job))),)) for job in jobs]

    def hand_over(self, dispatches):
        self.placed += [int(dispatch.job_id.removeprefix("job-")) for dispatch in dispatches]

    def run(self):
        """Step until there is nothing more to do at once. Return what was placed."""
        self.placed = []
        for _ in range(100):
            if pause := self.step():
                return self.placed, pause
        raise AssertionError("the step never comes to rest")


def counts_as(job):
    if job.is_late:
        return Priority.INTERACTIVE
    is_old = NOW - job.due_at >= BATCH_AGE_MS
    return Priority.STANDARD if is_old and job.job.priority is Priority.BATCH else job.job.priority


@pytest.fixture(autouse=True)
def tenants(store):
    make_tenants(store, *"abcdefgh")


def parked(store, numbers, tenant="a", priority=Priority.STANDARD, **changes):
    accept(store, *[new_job(n, pool=None, tenant_id=tenant, priority=priority, **changes) for n in numbers])


def end(store, *numbers):
    settle_each(store, *[outcome(number) for number in numbers])


def test_what_finds_no_room_waits_until_what_is_there_has_ended(store):
    fleet = Bounded(store, 10)
    parked(store, range(12))
    assert fleet.run() == (list(range(7)), SHORT_SECONDS), "a class fills a part, and a tenant a part of that"
    assert fleet.short_of_room.is_set()
    assert fleet.run() == ([], SHORT_SECONDS)
    end(store, 0, 1)
    assert fleet.run() == ([7, 8], SHORT_SECONDS)
    end(store, *range(2, 9))
    assert fleet.run() == ([9, 10, 11], IDLE)
    assert not fleet.short_of_room.is_set()
    assert all_held(store)[CAPACITY, POOL] == 3


def test_a_tenant_behind_a_long_queue_of_anothers_comes_at_once(store):
    fleet = Bounded(store, 10)
    parked(store, range(2 * BATCH))
    parked(store, range(1000, 1003), "b")
    placed, _ = fleet.run()
    assert {1000, 1001, 1002} <= set(placed)
    assert len(placed) == 7


def test_each_of_many_tenants_gets_its_turn_whatever_is_read_at_once(store, monkeypatch):
    monkeypatch.setattr(waiting_turns, "TENANTS", 2)
    fleet = Bounded(store, 3)
    for index, tenant in enumerate("abcdefgh"):
        parked(store, range(index * 100, index * 100 + 40), tenant)
    turns = []
    for _ in range(12):
        placed, _ = fleet.run()
        turns += [number // 100 for number in placed]
        end(store, *placed)
    assert set(turns) == set(range(8))
    assert max(turns.count(each) for each in range(8)) <= 2 * min(turns.count(each) for each in range(8)) + 2


def test_what_is_more_urgent_comes_first_and_what_has_waited_long_is_not_forgotten(store):
    fleet = Bounded(store, 2)
    parked(store, range(10), "a", Priority.BATCH)
    parked(store, range(100, 110), "b", Priority.STANDARD)
    parked(store, range(200, 202), "c", Priority.INTERACTIVE)
    assert fleet.run()[0] == [200, 201]
    end(store, 200, 201)
    assert fleet.run()[0] == [100], "standard jobs fill 7/8"
    end(store, 100)
    parked(store, range(300, 310), "d", Priority.BATCH, now_ms=NOW - BATCH_AGE_MS)
    placed = []
    for _ in range(4):
        placed += fleet.run()[0]
        end(store, *placed[-1:])
    assert {number // 100 for number in placed} == {1, 3}


LATE = LateStandard(age_ms=30_000, share=0.25)


def placed_in_turn(store, fleet, steps):
    """What is placed while each job that has a place ends, one after another."""
    waiting, order = [], []
    for _ in range(steps):
        waiting += fleet.run()[0]
        order.append(waiting.pop(0))
        end(store, order[-1])
    return order


def test_interactive_jobs_leave_late_standard_ones_their_share(store):
    fleet = Bounded(store, 4, LATE)
    parked(store, range(100), "a", Priority.INTERACTIVE)
    parked(store, range(1000, 1020), "b", Priority.STANDARD, now_ms=NOW - LATE.age_ms)
    order = placed_in_turn(store, fleet, 48)
    assert sum(number >= 1000 for number in order) == pytest.approx(48 / 4, abs=3)


def test_a_late_standard_job_passes_the_part_that_is_kept_for_interactive_ones(store):
    """A pool that is full of interactive jobs has no room for its class."""
    fleet = Bounded(store, 8, LATE)
    parked(store, range(100), "a", Priority.INTERACTIVE)
    parked(store, [1000], "b", Priority.STANDARD, now_ms=NOW - LATE.age_ms)
    order = placed_in_turn(store, fleet, 30)
    assert 1000 in order
    assert len(set(order)) == 30


@pytest.mark.parametrize(
    ("late", "age_ms"), [(NEVER_LATE, 10**9), (LATE, LATE.age_ms - 1), (LateStandard(30_000, 0.0), 10**9)]
)
def test_others_wait_for_all_interactive_jobs(store, late, age_ms):
    fleet = Bounded(store, 4, late)
    parked(store, range(60), "a", Priority.INTERACTIVE)
    parked(store, [1000], "b", Priority.STANDARD, now_ms=NOW - age_ms)
    assert 1000 not in placed_in_turn(store, fleet, 40)


def test_a_batch_job_is_late_once_it_counts_as_a_standard_one_that_is(store):
    fleet = Bounded(store, 4, LATE)
    parked(store, range(60), "a", Priority.INTERACTIVE)
    parked(store, [1000], "b", Priority.BATCH, now_ms=NOW - BATCH_AGE_MS - LATE.age_ms)
    parked(store, [2000], "c", Priority.BATCH, now_ms=NOW - BATCH_AGE_MS)
    order = placed_in_turn(store, fleet, 40)
    assert 1000 in order
    assert 2000 not in order


def test_a_tenant_with_many_late_jobs_leaves_another_its_turn(store):
    fleet = Bounded(store, 4, LATE)
    parked(store, range(100), "a", Priority.INTERACTIVE)
    parked(store, range(1000, 1050), "b", now_ms=NOW - 2 * LATE.age_ms)
    parked(store, range(2000, 2002), "c", now_ms=NOW - LATE.age_ms)
    assert {2000, 2001} <= set(placed_in_turn(store, fleet, 40))


def test_nothing_is_read_of_what_waits_while_there_is_no_room(store):
    fleet = Bounded(store, 4)
    parked(store, range(BATCH + 10))
    fleet.run()
    asked = []
    for engine in (store._readers, store._writers):
        event.listen(engine, "before_cursor_execute", lambda *call: asked.append(call[2]))
    assert fleet.run() == ([], SHORT_SECONDS)
    assert not [text for text in asked if "body" in text], "payloads were read"
    assert len(asked) < 25


def test_a_model_without_room_holds_up_no_other(store):
    class Two(Bounded):
        def served_models(self):
            return [DEMO, OTHER]

        def room_for(self, kept):
            return 0 if kept == DEMO else 100

        def choose_pools(self, jobs):
            return [ChosenPools((Claim("gpu.cpu.local.other-00000000", 100),)) for _ in jobs]

    fleet = Two(store, 10)
    parked(store, range(5))
    parked(store, [50], model="other")
    assert fleet.run() == ([50], SHORT_SECONDS)


def test_a_job_that_needs_something_finds_room_in_turn_too(store):
    needing = KeptModel("demo", "1", "region=eu")

    class Needing(Bounded):
        def served_models(self):
            return []

        def served_needs(self, with_needs):
            return [needing]

    fleet = Needing(store, 5)
    parked(store, range(BATCH + 3), region="eu")
    parked(store, [1000], "b", region="eu")
    assert 1000 in fleet.run()[0]
