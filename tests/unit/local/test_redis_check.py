"""The doctor's verdict of a Redis, by what that reports of its memory and its persistence."""

import pytest

from tether.broker.redis.safety import redis_risks
from tether.local.redis_check import (
    clock_verdict,
    describe_memory,
    full_memory,
    redis_verdict,
    unlimited_memory,
)

MB = 1_000_000
WATERMARK = 0.8


def memory(used, maxmemory=1_000):
    return {"used_memory": used * MB, "maxmemory": maxmemory * MB, "total_system_memory": 4_000 * MB}


def test_use_limit_and_watermark_are_shown():
    assert describe_memory(memory(12), WATERMARK) == ("12 MB of 1000 MB in use, jobs are placed up to 800 MB")
    assert "12 MB of 2000 MB in use" in describe_memory(memory(12, maxmemory=0), WATERMARK)
    assert describe_memory({"used_memory": 12 * MB}, WATERMARK) == "12 MB in use"


@pytest.mark.parametrize(
    ("used", "waiting"), [(599, None), (601, "(batch jobs"), (701, "(standard and batch jobs"), (801, None)]
)
def test_jobs_that_wait_for_room_are_named(used, waiting):
    told = describe_memory(memory(used), WATERMARK)
    assert (waiting or "jobs are placed") in told
    assert ("wait in the database" in told) == (waiting is not None)


def test_above_the_watermark_all_jobs_wait():
    assert full_memory(memory(799), WATERMARK) == ()
    (risk,) = full_memory(memory(800), WATERMARK)
    assert "until there is room" in risk.consequence
    check = redis_verdict("redis:6379", (risk,), describe_memory(memory(800), WATERMARK))
    assert (check.verdict, "800 MB of 1000 MB" in check.found) == ("warn", True)
    assert "maxmemory" in check.mend


def test_a_redis_without_a_limit_is_warned_of():
    assert unlimited_memory(memory(1)) == unlimited_memory({}) == ()
    (risk,) = unlimited_memory(memory(1, maxmemory=0))
    check = redis_verdict("redis:6379", (risk,), "")
    assert (check.verdict, "maxmemory is not set" in check.found) == ("warn", True)
    assert "set maxmemory to half" in check.mend


def test_eviction_fails_and_a_missing_append_only_file_is_warned_of():
    assert redis_verdict(
        "redis:6379", redis_risks({"maxmemory_policy": "allkeys-lru"}, None), ""
    ).verdict == ("FAIL")
    assert redis_verdict("redis:6379", redis_risks({"aof_enabled": 0}, None), "").verdict == "warn"
    check = redis_verdict("redis:6379", (), "12 MB in use")
    assert (check.verdict, check.found) == (
        "ok",
        "redis:6379, append-only, noeviction, 12 MB in use",
    )


def test_a_clock_that_is_off_is_warned_of():
    assert clock_verdict(0).verdict == clock_verdict(-2_000).verdict == "ok"
    for difference, words in ((600_000, "600.0 s ahead of"), (-2_001, "2.0 s behind")):
        check = clock_verdict(difference)
        assert (check.verdict, words in check.found, "NTP" in check.mend) == ("warn", True, True)
