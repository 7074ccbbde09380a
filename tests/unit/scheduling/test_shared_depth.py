import pytest

from tether.discovery.fleet.pool_views import PoolView, WorkerGroup
from tether.scheduling.shared_depth import shared_depths

BOTH, WITH_C = WorkerGroup(("a", "b"), 2), WorkerGroup(("a", "c"), 2)


def view(name, slots, *groups):
    where = {"gpu_class": "cpu", "region": "local"}
    return PoolView(
        name=name, model=name, version="1", digest="ab" * 32, workers=1, slots=slots, groups=groups, **where
    )


POOLS = (view("a", 8, BOTH, WITH_C), view("b", 4, BOTH), view("c", 2, WITH_C), view("d", 4))


def test_a_pool_has_of_others_what_its_workers_have_of_them():
    # Half of b's slots and all of c's are a's too; of a's, each has a quarter.
    found = shared_depths(POOLS, {"a": 16, "b": 10, "c": 3, "d": 100})
    assert found == {"a": pytest.approx(5 + 3), "b": pytest.approx(4), "c": pytest.approx(4)}


def test_nothing_is_shared_where_nothing_waits():
    assert shared_depths(POOLS, {}) == shared_depths(POOLS, {"d": 9}) == {}
