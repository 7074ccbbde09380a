from dataclasses import replace

import pytest

from tether.discovery.fleet.pool_views import PoolView
from tether.scheduling.pool_waits import WaitedPool, why_in_pool

VIEW = PoolView(
    name="here",
    model="m",
    version="1",
    digest="d",
    gpu_class="cpu",
    region="eu",
    workers=2,
    slots=4,
    warm=True,
)
BUSY = "pool here has 12 jobs for 4 slots"


def why(tenant="acme", view=VIEW, **facts):
    return why_in_pool(WaitedPool(name="here", model="m", view=view, **facts), tenant)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"jobs": 12}, BUSY),
        ({"jobs": 5, "shared": 0.4}, "pool here has 5 jobs for 4 slots"),
        (
            {"jobs": 1, "shared": 5.6},
            "pool here has 1 job, and its workers have 6 of other pools, for 4 slots",
        ),
        ({"jobs": 4}, ""),
        ({"jobs": 1, "view": replace(VIEW, slots=0)}, ""),
        ({"jobs": 2, "view": replace(VIEW, slots=0)}, "pool here has 2 jobs for 1 slot"),
    ],
)
def test_a_job_waits_for_a_slot_where_there_are_more_jobs(facts, words):
    assert why(**facts) == words


@pytest.mark.parametrize(("load_seconds", "takes"), [(0.0, ""), (7.2, ": it takes about 8 s")])
def test_a_job_waits_for_its_model_to_be_loaded_and_then_for_a_slot(load_seconds, takes):
    cold = replace(VIEW, warm=False, load_seconds=load_seconds)
    words = f"no worker of pool here has loaded model 'm' yet{takes}"
    assert why(view=cold, jobs=1) == words
    assert why(view=cold, jobs=12) == f"{words}; {BUSY}"


def test_a_job_is_told_why_its_model_cannot_be_loaded():
    cold = replace(VIEW, warm=False, load_seconds=8.0)
    words = "worker w1 cannot load model 'm', and tries again by itself: no room for it"
    assert why(view=cold, failing={"w1": "no room for it"}) == words
    unloadable = replace(cold, held=2, unloadable=2)
    assert why(view=unloadable, failing={"w1": "no room for it"}) == words
    assert (
        why(view=cold, failing={"w1": "no room for it", "w2": "broken"}) == f"{words}; 1 more cannot either"
    )


def test_a_job_waits_for_workers_that_are_all_held_back_from_its_tenant_alone():
    view = replace(VIEW, held=1, held_from={"acme": 1})
    held = {"w1": "5 attempts in a row failed"}
    words = "all workers of pool here are held back"
    assert why(view=view, held=held, jobs=12) == f"{words}, as worker w1: 5 attempts in a row failed"
    assert why(view=view) == words
    assert why("other", view=view, held=held, jobs=12) == BUSY


@pytest.mark.parametrize("view", [None, replace(VIEW, workers=0, silent=2)])
def test_a_job_in_a_pool_without_workers_goes_to_another_or_waits_for_one(view):
    assert why(view=view) == "no worker serves model 'm' now"
    assert why(view=view, is_served_elsewhere=True) == (
        "no worker draws from pool here now. Another pool that serves model 'm' gets the job, unless a "
        "worker comes back soon"
    )
