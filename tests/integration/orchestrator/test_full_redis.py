"""A Redis at its memory limit that has lost something besides: what puts that back is not refused."""

import contextlib
import json

import pytest
import redis

from support.core_steps import CoreSteps
from support.databases import POOL
from support.hand_worker import growth
from support.waiting import PATIENCE_SECONDS, eventually
from tether.broker.redis.connections import RefusedForNow
from tether.broker.redis.memory_limit import write_past_limit

JOBS = 40
PAYLOAD = json.dumps({"v": 1, "prompt": "x" * 100_000})


@pytest.fixture
def core(store, redis_server, namespace):
    made = CoreSteps(store, redis_server, namespace)
    yield made
    made.redis.config_set("maxmemory", 0)
    made.close()


def step(core):
    """Let the orchestrator and a worker go on. Return whether all jobs have ended."""
    core.reconcile()
    # Redis may be full while it places: its loop comes again.
    with contextlib.suppress(RefusedForNow):
        core.relay()
    core.worker.hello()
    for job in core.draw(8):
        core.worker.finish(growth(job, 1))
    core.settle()
    core.later()
    return set(core.states(*range(JOBS))) == {"succeeded"}


def fill(core):
    """Set the memory limit below what is in use now."""
    core.redis.config_set("maxmemory-policy", "noeviction")
    core.redis.config_set("maxmemory", int(core.redis.info("memory")["used_memory"] * 0.9))


@pytest.mark.parametrize("lost", ["epoch", "outcomes"])
def test_a_full_redis_that_has_lost_a_key_drains_all_the_same(core, lost):
    core.submit(*range(JOBS), payload=PAYLOAD)
    core.redis.delete(getattr(core.keys, lost))
    fill(core)
    eventually(lambda: step(core), PATIENCE_SECONDS, "all jobs have ended")


def test_a_pool_is_named_again_in_a_full_redis(core):
    core.submit(0)
    core.redis.srem(core.keys.pools, POOL)
    core.redis.config_set("maxmemory", 1)
    core.reconcile()
    core.reconcile()
    assert core.redis.smembers(core.keys.pools) == {POOL.encode()}


def test_a_dispatch_that_is_withdrawn_leaves_its_payload_no_room_in_redis(core):
    core.submit(0, payload=PAYLOAD)
    core.redis.delete(core.keys.epoch)
    core.reconcile()
    assert core.redis.hexists(core.keys.job("job-000000"), "body") == 0
    core.later()
    core.relay()
    core.worker.hello()
    (job,) = core.draw()
    assert json.loads(job.body) == json.loads(PAYLOAD)


def test_what_is_written_past_the_limit_is_told_its_errors(core):
    core.redis.config_set("maxmemory", 1)
    key = core.keys.epoch
    assert write_past_limit(core.redis, key, "SET", key, 7) == b"OK"
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        write_past_limit(core.redis, key, "SADD", key, "x")
    assert core.redis.get(key) == b"7"
