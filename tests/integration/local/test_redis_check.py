"""The doctor's check of a real Redis that is not its own."""

import redis

from tether.clocks import wall_clock_ms
from tether.config.loading import load_settings
from tether.local.redis_check import check_clock, check_redis


def test_limit_use_and_policy_of_a_real_redis_are_judged(redis_server):
    settings = load_settings(environ={"TETHER_REDIS__URL": redis_server.url})

    def verdict_and_text():
        check = check_redis(settings, None)
        return check.verdict, check.found

    with redis.Redis.from_url(redis_server.url) as client:
        verdict, found = verdict_and_text()
        assert (verdict, "maxmemory is not set" in found) == ("warn", True)
        client.config_set("maxmemory", "500mb")
        verdict, found = verdict_and_text()
        assert (verdict, "of 524 MB in use, jobs are placed up to 419 MB" in found) == ("ok", True)
        client.config_set("maxmemory", client.info("memory")["used_memory"])
        verdict, found = verdict_and_text()
        assert (verdict, "above the watermark" in found) == ("warn", True)
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert verdict_and_text()[0] == "FAIL"


def test_a_redis_that_refuses_the_password_is_not_taken_for_one_that_is_away(redis_server):
    with redis.Redis.from_url(redis_server.url) as client:
        client.config_set("requirepass", "right")
    told = redis_server.url.replace("://", "://:wrong@", 1)
    check = check_redis(load_settings(environ={"TETHER_REDIS__URL": told}), None)
    assert (check.verdict, "refuses" in check.found, "respond" in check.found) == ("FAIL", True, False)
    assert "password" in check.mend
    assert "wrong@" not in f"{check.found} {check.mend}"


def test_this_machines_clock_is_compared_with_redis(shared_redis_server):
    settings = load_settings(environ={"TETHER_REDIS__URL": shared_redis_server.url})
    assert check_clock(settings, None).verdict == "ok"
    ahead = check_clock(settings, None, lambda: wall_clock_ms() + 60_000)
    assert (ahead.verdict, "ahead of Redis" in ahead.found) == ("warn", True)
