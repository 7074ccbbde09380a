"""Nobody draws from a paused pool, or loads its model; what waits there is found again once it is resumed."""

import pytest

from support.hand_worker import growth
from support.pool_stage import OTHER, POOL, Stage, draw, ids
from tether.broker.pools.worker_port import LoadAdvice, PoolReadiness
from tether.jobs import JobState, Priority

BOTH = (POOL, OTHER)


@pytest.fixture
def stage(shared_redis_server, namespace):
    made = Stage(shared_redis_server, namespace)
    yield made
    made.close()


@pytest.fixture
def one(stage):
    return stage.worker("one.1")


def test_nothing_is_drawn_from_a_paused_pool_until_it_is_resumed(stage, one):
    stage.place_all(["job-1", "job-2"])
    stage.place("job-3", pool=OTHER)
    assert stage.pools.set_paused([POOL]) == (1, 0)
    assert ids(draw(one, 9, BOTH)) == ["job-3"]
    assert draw(one, 9, BOTH) == []
    assert stage.field("job-1", "state") == JobState.PLACED
    assert stage.pools.set_paused([]) == (0, 1)
    assert ids(draw(one, 9, BOTH)) == ["job-1", "job-2"]


@pytest.mark.parametrize("priority", Priority)
def test_the_same_of_every_class(stage, one, priority):
    stage.place("job-1", priority=priority)
    stage.pools.set_paused([POOL])
    assert draw(one) == []
    stage.tick(age_ms=0)
    assert draw(one) == []
    stage.pools.set_paused([])
    assert ids(draw(one)) == ["job-1"]


def test_what_runs_goes_on_and_waits_if_it_is_given_back(stage, one):
    stage.place("job-1")
    (job,) = draw(one)
    stage.pools.set_paused([POOL])
    one.release(growth(job))
    assert stage.field("job-1", "state") == JobState.PLACED
    assert draw(one) == []


def test_what_must_run_alone_waits_too(stage, one):
    stage.place_all(["job-1", "beside"])
    for life in (1, 2):
        worker = stage.worker(f"dying.{life}")
        assert len(draw(worker, 2)) == 2
        stage.die(worker)
    stage.cancel("beside")
    stage.pools.set_paused([POOL])
    assert draw(one, 2) == []
    stage.pools.set_paused([])
    assert [(job.job_id, job.alone) for job in draw(one, 2)] == [("job-1", True)]


def test_who_waits_for_a_pool_is_woken_once_it_is_resumed(stage, one):
    stage.pools.set_paused([POOL])
    assert draw(one, 1, BOTH) == []
    stage.place("job-1")
    assert draw(one, 1, BOTH) == []
    stage.redis.delete(stage.keys.wake(one.boot_id))
    stage.pools.set_paused([])
    assert stage.redis.llen(stage.keys.wake(one.boot_id)) == 1
    assert ids(draw(one, 1, BOTH)) == ["job-1"]


def test_a_worker_whose_pools_are_all_paused_is_seen_to_ask(stage, one):
    stage.pools.set_paused(BOTH)
    assert draw(one, 1, BOTH) == []
    for pool in BOTH:
        assert stage.redis.zcard(stage.keys.pool_drawing(pool)) == 1
    assert stage.redis.hget(stage.keys.asked, "one").endswith(f"{POOL} {OTHER}".encode())


def test_nobody_is_told_to_load_the_model_of_a_paused_pool(stage, one):
    stage.place("job-1")
    stage.pools.set_paused([POOL])
    assert one.demand([(POOL, PoolReadiness.COLD)]) == [LoadAdvice.NONE]
    assert one.demand([(POOL, PoolReadiness.FAILING)]) == [LoadAdvice.NONE]
    stage.pools.set_paused([])
    assert one.demand([(POOL, PoolReadiness.COLD)]) == [LoadAdvice.LOAD]


def test_what_stands_there_and_is_no_set_pauses_nothing_and_is_replaced(stage, one):
    stage.place("job-1")
    stage.redis.set(stage.keys.paused, "x")
    assert ids(draw(one)) == ["job-1"]
    stage.place("job-2")
    stage.redis.set(stage.keys.paused, "x")
    assert stage.pools.set_paused([POOL]) == (1, 0)
    assert stage.pools.paused() == {POOL}
    assert draw(one) == []


def test_a_draw_that_stopped_half_way_goes_on_though_pools_were_paused_meanwhile(stage, one):
    names = [f"{POOL[:-1]}{number}" for number in range(5)]
    for number, pool in enumerate(names):
        for tenant in range(80):
            stage.place(f"gone-{number}-{tenant}", pool=pool, tenant=f"tenant-{tenant}")
    for key in stage.redis.scan_iter(f"{stage.keys.prefix}:job:gone-*"):
        stage.redis.delete(key)
    for number, pool in enumerate(names):
        stage.place(f"job-{number}", pool=pool, tenant="zebra")
    assert len(draw(one, 5, names)) < 5
    stage.pools.set_paused(names[1:4])
    drawn = []
    for _ in range(20):
        drawn += ids(draw(one, 5, names))
    assert set(drawn) <= {"job-0", "job-4"}
    stage.pools.set_paused([])
    for _ in range(20):
        drawn += ids(draw(one, 5, names))
    assert len(drawn) <= 5
