"""Pauses are in Redis as the database has them, whatever becomes of Redis."""

import pytest

from support.core_steps import CoreSteps
from support.databases import NOW, OTHER_POOL, POOL
from tether.orchestrator.pause_mirror import MirrorPauses
from tether.store.pool_pauses import pause_pool, resume_pool
from tether.telemetry import metrics


@pytest.fixture
def core(store, shared_redis_server, namespace):
    made = CoreSteps(store, shared_redis_server, namespace)
    yield made
    made.close()


@pytest.fixture
def mirror(core):
    step = MirrorPauses(core.store, core.pools)
    yield step
    step.lapse()


def pause(core, *pools):
    for pool in pools:
        core.store.write_alone(pause_pool, pool, "", NOW).result()


def told():
    return metrics.REGISTRY.value_of("tether_paused_pools", {})


def test_redis_has_what_the_database_has(core, mirror):
    pause(core, POOL, OTHER_POOL)
    mirror()
    assert core.pools.paused() == {POOL, OTHER_POOL}
    assert told() == 2
    core.store.write_alone(resume_pool, POOL).result()
    mirror()
    assert core.pools.paused() == {OTHER_POOL}
    assert told() == 1


def test_nothing_is_written_where_it_does_not_differ(core, mirror, monkeypatch):
    pause(core, POOL)
    mirror()
    monkeypatch.setattr(core.pools, "set_paused", lambda pools: pytest.fail("written again"))
    mirror()


@pytest.mark.parametrize("damage", ["lost", "another type", "set back"])
def test_a_redis_that_lost_it_gets_it_again(core, mirror, damage):
    pause(core, POOL)
    mirror()
    core.submit(1)
    core.redis.delete(core.keys.paused)
    if damage == "another type":
        core.redis.set(core.keys.paused, "x")
    elif damage == "set back":
        core.redis.sadd(core.keys.paused, OTHER_POOL)
    mirror()
    assert core.pools.paused() == {POOL}
    assert core.draw() == ()


def test_what_is_resumed_is_drawn_at_once(core, mirror):
    pause(core, POOL)
    mirror()
    core.submit(1)
    assert core.draw() == ()
    core.store.write_alone(resume_pool, POOL).result()
    mirror()
    assert core.redis.exists(core.keys.wake(core.worker.boot_id))
    assert len(core.draw()) == 1


def test_another_orchestrator_tells_of_it_from_then_on(core, mirror):
    pause(core, POOL)
    mirror()
    mirror.lapse()
    assert told() == 0
