"""What waits in pools, as Redis has it."""

import pytest

from support.pool_stage import OTHER, POOL, Stage, draw
from tether.core.pool_backlogs import waiting_jobs
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
