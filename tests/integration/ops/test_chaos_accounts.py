"""What a chaos run finds in Redis when all is quiet: keys without an owner, each named."""

import importlib

import pytest
import redis

from support.paths import ROOT
from tether.broker.keys import Keys

POOL = "gpu.cpu.local.m-00000000"


@pytest.fixture
def accounts(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "ops" / "bench"))
    return importlib.import_module("chaos_accounts")


@pytest.fixture
def keys(namespace):
    return Keys(namespace)


@pytest.fixture
def redis_client(shared_redis_server):
    with redis.Redis.from_url(shared_redis_server.url) as client:
        yield client


@pytest.fixture
def left(accounts, redis_client, keys):
    return lambda: accounts.leftovers(redis_client, keys)


def unread_outcome(client, prefix):
    client.xgroup_create(f"{prefix}:core:outcomes", "settle", id="0", mkstream=True)
    client.xadd(f"{prefix}:core:outcomes", {"job": "j"})


def unacknowledged_outcome(client, prefix):
    unread_outcome(client, prefix)
    client.xreadgroup("settle", "gone", {f"{prefix}:core:outcomes": ">"})


PLANTED = {
    "job:j": lambda client, prefix: client.hset(f"{prefix}:job:j", "state", "succeeded"),
    "stream:j": lambda client, prefix: client.xadd(f"{prefix}:stream:j", {"a": "b"}),
    "drawn:w.1": lambda client, prefix: client.hset(f"{prefix}:drawn:w.1", "j", 1),
    f"pool:{POOL}:standard:t": lambda client, prefix: client.rpush(f"{prefix}:pool:{POOL}:standard:t", "j 1"),
    f"pool:{POOL}:standard": lambda client, prefix: client.zadd(f"{prefix}:pool:{POOL}:standard", {"t": 1}),
    f"pool:{POOL}:idle": lambda client, prefix: client.sadd(f"{prefix}:pool:{POOL}:idle", "w.1"),
    "core:leases": lambda client, prefix: client.zadd(f"{prefix}:core:leases", {"j j": 1}),
    "core:outcomes": unread_outcome,
    "core:unheard_of": lambda client, prefix: client.set(f"{prefix}:core:unheard_of", 1),
    "mystery:thing": lambda client, prefix: client.set(f"{prefix}:mystery:thing", 1),
}


@pytest.mark.parametrize("name", PLANTED)
def test_each_key_without_an_owner_is_found(left, redis_client, keys, name):
    PLANTED[name](redis_client, keys.prefix)
    assert set(left()) == {name}


def test_outcomes_that_nobody_acknowledged_are_found(left, redis_client, keys):
    unacknowledged_outcome(redis_client, keys.prefix)
    assert left() == {"core:outcomes": "1 entries were not acknowledged"}


def test_what_has_a_life_or_an_owner_is_not_blamed(left, redis_client, keys):
    prefix = keys.prefix
    redis_client.hset(f"{prefix}:job:j", "state", "succeeded")
    redis_client.pexpire(f"{prefix}:job:j", 60_000)
    redis_client.sadd(f"{prefix}:pool:{POOL}:idle", "w.1")
    redis_client.set(f"{prefix}:idle:w.1", POOL, px=60_000)
    redis_client.zadd(f"{prefix}:core:leases", {"w w.1": 1})
    redis_client.set(f"{prefix}:core:epoch", 1)
    unacknowledged_outcome(redis_client, prefix)
    (entry,) = redis_client.xrange(f"{prefix}:core:outcomes")
    redis_client.xack(f"{prefix}:core:outcomes", "settle", entry[0])
    assert left() == {}
