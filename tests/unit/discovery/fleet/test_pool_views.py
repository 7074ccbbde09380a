from dataclasses import replace

import pytest

from support.presences import DIGEST, KEY, MODEL, OTHER_KEY, apply, presence
from tether.discovery.announcements.presence import ModelState, Supported, WorkerState
from tether.discovery.fleet.fleet import Fleet, expire, judged, unroutable
from tether.discovery.fleet.held_back import HeldBack
from tether.discovery.fleet.pool_views import PoolViews, pools
from tether.models.registry import pool_name

POOL = pool_name("cpu", "local", MODEL)
ELSEWHERE = pool_name("cpu", "elsewhere", MODEL)
TWO = apply(apply(Fleet(), presence(), 0), presence(OTHER_KEY), 0)


class Views(PoolViews):
    """With time by hand, and adding up that costs as much as a test says."""

    def __init__(self, cost_ms):
        self.now = self.spent = 0
        super().__init__(lambda: self.now, self._stopwatch)
        self.cost = cost_ms / 1000

    def _stopwatch(self):
        self.spent += self.cost
        return self.spent

    def free(self, fleet):
        return sum(pool.free for pool in self.of(fleet))

    def workers(self, fleet):
        return {pool.name: pool.workers for pool in self.of(fleet)}


def test_the_pools_of_an_unchanged_fleet_are_added_up_again_after_a_while():
    views = Views(cost_ms=1)
    first = views.of(TWO)
    views.now = 99
    assert views.of(TWO) is first
    views.now = 15_000
    assert views.workers(TWO) == {}


def test_a_heartbeat_shows_once_adding_up_costs_little_enough():
    views = Views(cost_ms=2)
    assert views.free(TWO) == 10
    busier = apply(TWO, presence(sequence=2, free=0), 1)
    views.now = 39
    assert views.free(busier) == 10
    views.now = 40
    assert views.free(busier) == 5


@pytest.mark.parametrize(
    "change",
    [
        lambda fleet: apply(fleet, presence(sequence=2, state=WorkerState.STOPPED), 1),
        lambda fleet: apply(fleet, presence(sequence=2, state=WorkerState.DRAINING), 1),
        lambda fleet: apply(fleet, presence(sequence=2, pools=()), 1),
        lambda fleet: expire(apply(fleet, presence(sequence=2), 1, life_ms=1), 2),
        lambda fleet: unroutable(fleet, presence().boot_id),
    ],
    ids=["goodbye", "drains", "draws from nowhere", "ends", "unroutable"],
)
def test_who_is_gone_from_a_small_fleet_is_gone_at_once(change):
    views = Views(cost_ms=4)
    assert views.workers(TWO) == {POOL: 2}
    assert views.workers(change(TWO)) == {POOL: 1}
    assert views.workers(TWO) == {POOL: 2}


def test_a_large_fleet_shows_changes_later_but_a_pool_that_comes_or_goes_at_once():
    views = Views(cost_ms=10)
    assert views.workers(TWO) == {POOL: 2}
    one = apply(TWO, presence(sequence=2, state=WorkerState.STOPPED), 1)
    views.now = 199
    assert views.workers(one) == {POOL: 2}
    with_another = apply(one, presence(KEY, boot=2, region="elsewhere"), 2)
    assert views.workers(with_another) == {POOL: 1, ELSEWHERE: 1}
    views.now += 1
    without = apply(with_another, presence(KEY, boot=2, sequence=2, state=WorkerState.STOPPED), 3)
    assert views.workers(without) == {POOL: 1}


def test_who_is_held_back_is_counted_where_it_is_and_for_whom():
    worker, other = presence().worker_id, presence(OTHER_KEY).worker_id
    of_one = HeldBack(tenants=frozenset({"one"}), is_for_all=False)
    of_all = HeldBack(tenants=frozenset({"one", "two"}), is_for_all=True, may_try=True)

    def able(held):
        (pool,) = pools(judged(TWO, {}, held), 1)
        return [pool.able(tenant) for tenant in ("one", "two", None)], pool.may_try

    assert able({}) == ([2, 2, 2], False)
    assert able({worker: {POOL: of_one}, "stranger": {POOL: of_all}}) == ([1, 2, 2], False)
    assert able({worker: {POOL: of_one}, other: {ELSEWHERE: of_all}}) == ([1, 2, 2], False)
    assert able({worker: {POOL: of_one}, other: {POOL: of_all}}) == ([0, 1, 1], True)


def test_workers_that_draw_from_several_pools_are_told_with_all_of_them():
    other = replace(MODEL, name="other", digest="cd" * 32)
    mine, others = pool_name("cpu", "local", MODEL), pool_name("cpu", "local", other)
    both = (
        Supported("tiny", "1", DIGEST, ModelState.WARM),
        Supported("other", "1", other.digest, ModelState.COLD),
    )
    fleet = apply(Fleet(), presence(slots=2, free=2, supported=both, pools=(mine, others)), 0)
    fleet = apply(fleet, presence(OTHER_KEY, slots=6, free=6), 0)
    groups = {view.name: [(group.pools, group.slots) for group in view.groups] for view in pools(fleet, 1)}
    assert groups == {mine: [((mine, others), 2)], others: [((mine, others), 2)]}
    assert [view.groups for view in pools(TWO, 1)] == [()]


@pytest.mark.parametrize(
    ("sizes", "least"),
    [((80, 40), 40), ((40, 80), 40), ((80, 0), 80), ((0, 80), 80), ((0, 0), 0), ((80, 80), 80)],
)
def test_a_pool_has_the_memory_of_its_least_worker_that_says_what_it_has(sizes, least):
    fleet = Fleet()
    for key, size in zip((KEY, OTHER_KEY), sizes, strict=True):
        fleet = apply(fleet, presence(key, vram_total=size), 0)
    (pool,) = pools(fleet, 1)
    assert pool.vram == least
