from dataclasses import replace

import pytest
from nacl.signing import SigningKey

from support.presences import DIGEST, KEY, MODEL, OTHER_KEY, apply, presence
from tether.discovery.announcements.presence import ModelState, Supported, WorkerState
from tether.discovery.fleet.fleet import Fleet, expire, held_or_failing, judged, unroutable
from tether.discovery.fleet.held_back import HeldBack
from tether.discovery.fleet.measured_rates import MAX_SLOT_TOKENS_PER_SECOND
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


def test_who_cannot_load_a_model_is_held_back_from_its_pool_alone_and_counts_again_once_it_has():
    cold = (Supported("tiny", "1", DIGEST, ModelState.COLD),)
    both = apply(apply(Fleet(), presence(supported=cold), 0), presence(OTHER_KEY, supported=cold), 0)
    worker, other = presence().worker_id, presence(OTHER_KEY).worker_id
    of_one = HeldBack(tenants=frozenset({"one"}), is_for_all=False)

    def counted(fleet, without_hope, held=None):
        found = held_or_failing(fleet.members, held or {}, without_hope)
        (pool,) = pools(judged(fleet, {}, found), 1)
        return pool.able(None), pool.held, pool.unloadable, pool.may_try

    assert counted(both, {}) == (2, 0, 0, False)
    assert counted(both, {worker: {"tiny@1": False}}) == (1, 1, 1, False)
    assert counted(both, {worker: {"tiny@1": False}, other: {"tiny@1": True}}) == (0, 2, 2, True)
    assert counted(both, {worker: {"tiny@2": False}, "stranger": {"tiny@1": False}}) == (2, 0, 0, False)
    assert counted(both, {worker: {"tiny@1": False}}, {worker: {POOL: of_one}}) == (1, 1, 1, False)
    warm = (Supported("tiny", "1", DIGEST, ModelState.WARM),)
    loaded = apply(both, presence(sequence=2, supported=warm), 0)
    assert counted(loaded, {worker: {"tiny@1": False}}) == (2, 0, 0, False)


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


def keyed(number):
    return SigningKey(bytes([number]) * 32)


def pool_of(*told):
    """The pool of workers that tell such things of themselves, each another."""
    fleet = Fleet()
    for number, changes in enumerate(told):
        fleet = apply(fleet, presence(keyed(number), **changes), 0)
    return pools(fleet, 1)[0]


def loads_in(seconds):
    return {"supported": (Supported("tiny", "1", DIGEST, ModelState.COLD, seconds),)}


def test_a_pool_has_the_rates_and_the_load_time_of_the_middle_one_of_those_that_know_theirs():
    pool = pool_of(
        *(
            {"tokens_per_second": 8.0 * rate, "prefill_tokens_per_second": 100.0 * rate}
            for rate in (0, 1, 3, 9)
        ),
        *(loads_in(seconds) for seconds in (0.0, 2.0, 30.0, 4.0)),
    )
    assert (pool.slot_tokens_per_second, pool.prefill_tokens_per_second, pool.load_seconds) == (
        5.0,
        300.0,
        4.0,
    )
    unknown = pool_of({"tokens_per_second": 0.0})
    assert (unknown.slot_tokens_per_second, unknown.prefill_tokens_per_second, unknown.load_seconds) == (
        0,
        0,
        0,
    )


def test_a_pool_of_which_nothing_was_measured_is_like_those_with_its_model_on_its_gpu_class():
    unmeasured = {"tokens_per_second": 0.0, **loads_in(0.0)}
    other = {**unmeasured, "supported": (Supported("tiny", "1", "cd" * 32, ModelState.COLD),)}
    named = replace(MODEL, digest="cd" * 32)
    told = [
        {"region": "eu", "tokens_per_second": 80.0, **loads_in(4.0)},
        {"region": "us", "tokens_per_second": 160.0, **loads_in(6.0)},
        {"region": "ap", **unmeasured, "prefill_tokens_per_second": 300.0},
        {"region": "ap", "gpu_class": "h100", **unmeasured},
        {"region": "ap", **other, "pools": (pool_name("cpu", "ap", named),)},
    ]
    fleet = Fleet()
    for number, changes in enumerate(told):
        fleet = apply(fleet, presence(keyed(number), **changes), 0)
    found = {
        (view.region, view.gpu_class, view.digest == DIGEST): (
            view.slot_tokens_per_second,
            view.prefill_tokens_per_second,
            view.load_seconds,
        )
        for view in pools(fleet, 1)
    }
    assert found == {
        ("eu", "cpu", True): (10.0, 300.0, 4.0),
        ("us", "cpu", True): (20.0, 300.0, 6.0),
        ("ap", "cpu", True): (10.0, 300.0, 6.0),
        ("ap", "h100", True): (0.0, 0.0, 0.0),
        ("ap", "cpu", False): (0.0, 0.0, 0.0),
    }


@pytest.mark.parametrize(
    "lie",
    [
        {"tokens_per_second": 1e8, "prefill_tokens_per_second": 1e8, **loads_in(0.001)},
        {"tokens_per_second": 1e-9, "prefill_tokens_per_second": 1e-9, **loads_in(86_400.0)},
        {"slots": 0, "free": 0},
    ],
)
def test_one_absurd_worker_does_not_make_its_pool_absurd(lie):
    told = {"tokens_per_second": 160.0, "prefill_tokens_per_second": 500.0, **loads_in(3.0)}
    honest = pool_of(told, told)
    pool = pool_of(told, told, {**told, **lie})
    assert pool.slot_tokens_per_second == honest.slot_tokens_per_second == 20.0
    assert pool.prefill_tokens_per_second == honest.prefill_tokens_per_second == 500.0
    assert (pool.load_seconds, honest.load_seconds) == (3.0, 3.0)
    assert 16 <= pool.slots <= 24


@pytest.mark.parametrize("others", [1, 2, 5])
def test_a_worker_that_says_it_has_any_number_of_slots_counts_with_a_few(others):
    pool = pool_of({"slots": 4_096, "free": 4_096}, *({} for _ in range(others)))
    assert (pool.slots, pool.free) == (8 * others + 64, 5 * others + 64)
    other = replace(MODEL, name="other", digest="cd" * 32)
    both = {
        "supported": (presence().supported[0], Supported("other", "1", other.digest, ModelState.WARM)),
        "pools": (POOL, pool_name("cpu", "local", other)),
    }
    pool = pool_of({"slots": 4_096, "free": 0, **both}, *({} for _ in range(others)))
    assert [group.slots for group in pool.groups] == [64]


def test_no_slot_decodes_more_than_a_slot_can():
    assert pool_of({"tokens_per_second": 1e8}).slot_tokens_per_second == MAX_SLOT_TOKENS_PER_SECOND


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
