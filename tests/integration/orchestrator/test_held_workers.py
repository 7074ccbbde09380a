"""Operators hear of workers that are held from pools."""

import json

from structlog.testing import capture_logs

from support.pool_stage import POOL, Stage
from tether.orchestrator.held_workers import TellOfHeldWorkers
from tether.telemetry import metrics

HELD = {"jobs": ["a"], "tenants": ["one"], "count": 5, "code": "engine_failed", "others": True}
HELD |= {"since": 1, "at": 2**50, "pause": 1_000, "until_ms": 2, "probe": ""}


def counted():
    return metrics.REGISTRY.value_of("tether_held_workers", {"pool": POOL})


def test_a_worker_that_is_held_and_one_that_is_no_more_are_told_once(shared_redis_server, namespace):
    stage = Stage(shared_redis_server, namespace)
    live = ["w", "other"]
    step = TellOfHeldWorkers(stage.redis, stage.keys, lambda: live)

    def told():
        with capture_logs() as logs:
            step()
        return [(entry["event"], entry["worker"], entry["pool"]) for entry in logs]

    try:
        assert told() == []
        stage.redis.hset(stage.keys.worker_health("w"), POOL, json.dumps(HELD))
        stage.redis.hset(stage.keys.worker_health("stranger"), POOL, json.dumps(HELD))
        stage.redis.set(stage.keys.worker_health("other"), "no hash")
        assert told() == [("A worker is held.", "w", POOL)]
        assert counted() == 1
        assert told() == []
        stage.redis.delete(stage.keys.worker_health("w"))
        assert told() == [("A worker is held no longer.", "w", POOL)]
        assert counted() == 0
    finally:
        stage.close()
