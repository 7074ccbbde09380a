"""Unsafe settings of a real Redis are found and logged once, also where CONFIG is forbidden."""

import redis
import structlog
from structlog.testing import capture_logs

from tether.broker.redis.safety import RedisSafety, read_risks


def logged(safety, calls=1):
    with capture_logs() as lines:
        for _ in range(calls):
            safety.look()
    return [(line["log_level"], line["finding"]) for line in lines]


def test_each_finding_is_logged_once(redis_server):
    client = redis.Redis.from_url(redis_server.url)
    safety = RedisSafety(client, structlog.get_logger("test"))
    assert logged(safety, 2) == []
    client.config_set("maxmemory-policy", "allkeys-lru")
    assert logged(safety, 3) == [("error", "maxmemory-policy is allkeys-lru, not noeviction")]
    client.config_set("appendonly", "no")
    assert logged(safety, 3) == [("error", "appendonly is no, and there are no snapshots")]
    with capture_logs() as lines:
        safety.look_once()
    assert lines == []
    client.close()


def test_an_account_without_config_is_checked_all_the_same(redis_server):
    admin = redis.Redis.from_url(redis_server.url)
    admin.config_set("maxmemory-policy", "volatile-lru")
    admin.acl_setuser("app", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all", "-config"])
    settings = {**admin.connection_pool.connection_kwargs, "username": "app", "password": "secret"}
    client = redis.Redis.from_pool(redis.ConnectionPool(admin.connection_pool.connection_class, **settings))
    assert [risk.finding for risk in read_risks(client)] == [
        "maxmemory-policy is volatile-lru, not noeviction"
    ]
    admin.acl_setuser("app", enabled=True, commands=["-info"])
    with capture_logs() as lines:
        RedisSafety(client, structlog.get_logger("test")).look()
    assert [line["log_level"] for line in lines] == ["warning"]
    client.close(), admin.close()


def test_a_redis_that_is_away_is_checked_later(redis_server):
    client = redis.Redis.from_url(redis_server.url)
    client.config_set("maxmemory-policy", "allkeys-lru")
    safety = RedisSafety(client, structlog.get_logger("test"))
    redis_server.close()
    with capture_logs() as lines:
        safety.look_once()
    assert lines == []
    assert not safety._has_looked
    client.close()
