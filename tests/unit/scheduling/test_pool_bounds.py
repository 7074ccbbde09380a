"""How many jobs a pool takes, of all tenants and of one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.presences import DIGEST
from tether.config.settings import SchedulingSettings
from tether.discovery.fleet.pool_views import PoolView
from tether.jobs import Priority
from tether.scheduling.pool_bounds import MAX_POOL_JOBS, bound_of_class, pool_bound
from tether.store.capacity import NO_BOUND, has_room, room_of_tenant

SETTINGS = SchedulingSettings(pool_horizon=60_000, pool_jobs=10)


def view(slots=4, rate=0.0):
    about = {"gpu_class": "cpu", "region": "local", "workers": 1, "slot_tokens_per_second": rate}
    return PoolView(name="pool", model="m", version="1", digest=DIGEST, slots=slots, **about)


def test_a_pool_takes_what_its_slots_run_and_what_they_do_in_the_horizon():
    # 60 s of 4 slots at 64 tokens a second are 60 jobs of 256 tokens.
    assert pool_bound(view(rate=64.0), SETTINGS) == 64
    assert pool_bound(view(rate=64.0), SETTINGS.model_copy(update={"pool_horizon": 120_000})) == 124


def test_it_takes_no_fewer_than_the_setting_and_no_more_than_any_pool_has():
    assert pool_bound(view(rate=0.1), SETTINGS) == 14
    assert pool_bound(view(rate=1e12), SETTINGS) == MAX_POOL_JOBS


@pytest.mark.parametrize("bound", [1, 2, 7, 256])
def test_what_is_more_urgent_may_fill_more(bound):
    filled = [
        bound_of_class(bound, each) for each in (Priority.BATCH, Priority.STANDARD, Priority.INTERACTIVE)
    ]
    assert filled == sorted(filled)
    assert filled[0] >= 1
    assert filled[-1] == bound


@given(st.integers(1, 300), st.data())
def test_the_room_of_a_tenant_is_what_it_gets_one_by_one(bound, data):
    held = data.draw(st.integers(0, bound + 5))
    of_tenant = data.draw(st.integers(0, held))
    expected = 0
    while has_room(bound, held + expected, of_tenant + expected):
        expected += 1
    assert room_of_tenant(bound, held, of_tenant) == expected
    assert held + expected <= max(bound, held)


@given(st.integers(1, 300), st.integers(1, 20))
def test_who_has_nothing_there_finds_room_beside_others_that_take_all_they_get(bound, greedy):
    held = [0] * greedy
    for _ in range(bound):
        for tenant in range(greedy):
            held[tenant] += has_room(bound, sum(held), held[tenant])
    assert sum(held) <= bound
    # Each of n tenants stops at four times what is free: a part of 1 / (4 n + 1) stays so.
    assert sum(held) < bound or bound < 4 * greedy + 1
    assert has_room(bound, sum(held), 0) == (sum(held) < bound)


def test_one_tenant_alone_gets_four_fifths():
    assert room_of_tenant(100, 0, 0) == 80
    assert room_of_tenant(1, 0, 0) == 1
    assert has_room(NO_BOUND, 1_000_000, 1_000_000)
