"""What waits in pools, in Redis and in the database."""

from types import SimpleNamespace

import pytest

from support.core_steps import CoreSteps
from support.databases import OTHER_POOL
from support.databases import POOL as KEPT_POOL
from support.pool_stage import OTHER, POOL, Stage, draw
from tether.core.pool_backlogs import last_worker_of, owed_jobs, waiting_jobs
from tether.discovery.fleet.fleet import Fleet
from tether.jobs import Priority


@pytest.fixture
def stage(shared_redis_server, namespace):
    made = Stage(shared_redis_server, namespace)
    yield made
    made.close()


def test_jobs_of_all_tenants_and_classes_are_counted_by_pool_while_they_wait(stage):
    assert waiting_jobs(stage.redis, stage.keys) == {}
    stage.place_all(["one", "two"])
    stage.place("three", tenant="other", priority=Priority.BATCH)
    stage.place("four", pool=OTHER)
    stage.redis.sadd(stage.keys.pools, "another", b"\xff")
    assert waiting_jobs(stage.redis, stage.keys) == {POOL: 3, OTHER: 1}
    draw(stage.worker("worker.1"), 2)
    assert waiting_jobs(stage.redis, stage.keys) == {POOL: 1, OTHER: 1}


def test_what_is_no_list_counts_nothing(stage):
    stage.place("one", pool=OTHER)
    stage.place("two")
    stage.redis.set(stage.keys.pool_jobs(OTHER, "standard", "default"), "x")
    assert waiting_jobs(stage.redis, stage.keys) == {POOL: 1}


def test_what_waits_in_the_database_for_room_in_redis_counts_as_well(store, shared_redis_server, namespace):
    core = CoreSteps(store, shared_redis_server, namespace)
    try:
        core.submit(1)
        core.submit(2, 3, places=False)
        core.submit(4, places=False, pool=OTHER_POOL)
        core.submit(5, places=False, pool=KEPT_POOL + "!")
        core.submit(6, pool=None)
        assert owed_jobs(store) == {KEPT_POOL: 2, OTHER_POOL: 1, KEPT_POOL + "!": 1}
        assert owed_jobs(store, [KEPT_POOL]) == {KEPT_POOL: 2}
        model = SimpleNamespace(name="demo", version="1", digest="0" * 64)
        state = SimpleNamespace(worker_id="w", state=None)
        member = SimpleNamespace(presence=state, serves=((KEPT_POOL, model),))
        fleet = Fleet(members={"w": member}, served={KEPT_POOL: 1})
        reading = SimpleNamespace(client=core.redis, keys=core.keys, view=SimpleNamespace(fleet=fleet))
        (last,) = last_worker_of(reading, "w", lambda pools: owed_jobs(store, pools))
        assert last.waiting == 3
    finally:
        core.close()
