"""Whether a tenant has its share of a full pool, and what stands before its next job."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.admission.pool_shares import SharedPool

HELD = st.dictionaries(st.sampled_from("abcde"), st.integers(0, 50))
WEIGHTS = st.dictionaries(st.sampled_from("abcde"), st.floats(0.001, 1000))


def test_who_has_nothing_there_is_below_its_share_whatever_others_have():
    pool = SharedPool({"a": 10})
    assert not pool.has_its_share("b")
    assert pool.has_its_share("a")


@pytest.mark.parametrize(("held", "has"), [(1, False), (2, True), (3, True)])
def test_a_share_goes_by_weight(held, has):
    pool = SharedPool({"a": 8 - held, "b": held}, {"a": 3.0, "b": 1.0})
    assert pool.share_of("b") == 2.0
    assert pool.has_its_share("b") is has


def test_a_pool_with_more_tenants_than_places_has_one_for_each():
    pool = SharedPool({str(number): 1 for number in range(5)})
    assert pool.has_its_share("0")
    assert not pool.has_its_share("new")


def test_others_backlogs_do_not_stand_before_a_tenant_with_little_there():
    pool = SharedPool({"a": 90, "b": 3})
    assert pool.jobs_before("b") == 6
    assert pool.jobs_before("a") == 93
    assert pool.jobs_before("new") == 0


@given(HELD, WEIGHTS)
def test_no_more_stands_before_a_job_than_there_is(held, weights):
    pool = SharedPool(held, weights)
    for tenant in "abcde":
        assert held.get(tenant, 0) <= pool.jobs_before(tenant) + 1e-6
        assert pool.jobs_before(tenant) <= sum(held.values())


@given(HELD, WEIGHTS)
def test_the_shares_of_a_pool_are_what_it_has(held, weights):
    pool = SharedPool(held, weights)
    if held:
        assert sum(map(pool.share_of, held)) == pytest.approx(sum(held.values()))
