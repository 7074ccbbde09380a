"""Bytes of bodies that are promised: bounded in total, and never all of them one tenant's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.errors import TooManyRequests
from tether.gateway.body_budget import RETRY_SECONDS, BodyBudget


def test_a_tenant_gets_half_and_leaves_room_for_others():
    budget = BodyBudget(100)
    for _ in range(5):
        budget.take("a", 10)
    with pytest.raises(TooManyRequests, match="50 of them from tenant 'a'") as refusal:
        budget.take("a", 10)
    assert refusal.value.retry_after == RETRY_SECONDS
    for _ in range(2):
        budget.take("b", 10)
    budget.take("c", 10)
    budget.give_back("a", 50)
    budget.take("a", 30)
    assert (budget.held_by("a"), budget.held_by("b"), budget.in_flight) == (30, 20, 60)


def test_a_body_of_nothing_is_always_taken():
    budget = BodyBudget(10)
    budget.take("a", 5)
    budget.take("b", 5)
    budget.take("c", 0)


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 60), st.booleans()),
        max_size=60,
    )
)
def test_whatever_comes_the_bound_holds_and_whoever_holds_nothing_gets_half_of_what_one_left(steps):
    budget, taken = BodyBudget(100), []
    for tenant, size, gives_back in steps:
        if gives_back and taken:
            budget.give_back(*taken.pop(0))
            continue
        free, held = 100 - budget.in_flight, budget.held_by(tenant)
        try:
            budget.take(tenant, size)
        except TooManyRequests:
            assert held + size > free
        else:
            taken.append((tenant, size))
        assert 0 <= budget.in_flight == sum(size for _, size in taken) <= 100
    for tenant, size in taken:
        budget.give_back(tenant, size)
    assert (budget.in_flight, *map(budget.held_by, "abc")) == (0, 0, 0, 0)
