"""What is unsafe about a Redis, by what it reports."""

import pytest

from tether.broker.redis.safety import redis_risks

SAFE = {
    "maxmemory_policy": "noeviction",
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
    "rdb_last_bgsave_status": "ok",
}


@pytest.mark.parametrize("save", ["", "3600 1", None])
def test_append_only_without_eviction_is_safe(save):
    assert redis_risks(SAFE, save) == ()


def test_what_is_not_reported_is_not_judged():
    assert redis_risks({}, None) == ()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
def test_eviction_is_unsafe(policy):
    (risk,) = redis_risks({**SAFE, "maxmemory_policy": policy}, None)
    assert policy in risk.finding
    assert "noeviction" in risk.remedy


@pytest.mark.parametrize(
    ("save", "loses_all"), [("", True), ("3600 1", False), (None, False)], ids=["none", "some", "unknown"]
)
def test_without_the_append_only_file_tokens_are_lost(save, loses_all):
    (risk,) = redis_risks({**SAFE, "aof_enabled": 0}, save)
    assert ("no snapshots" in risk.finding) == loses_all
    assert ("since the last snapshot" in risk.consequence) != loses_all


def test_failed_writes_are_unsafe():
    info = {**SAFE, "aof_last_write_status": "err", "rdb_last_bgsave_status": "err"}
    assert len(redis_risks(info, "")) == 2
