"""States of jobs that Redis owns: told at once, or not at all."""

import redis

from support.stalling_proxy import StallingProxy
from tether.broker.keys import Keys
from tether.broker.pools.known_jobs import KnownJob
from tether.core import live_states
from tether.core.live_states import LiveStates
from tether.discovery.over_redis.load_failures import write_load_failures

KEYS = Keys("tether")


def test_what_redis_knows_is_told_for_each_job(redis_server):
    with redis.Redis.from_url(redis_server.url) as client:
        client.hset(KEYS.job("a"), mapping={"state": "running", "dispatch": "2", "offset": "7"})
        states = LiveStates(client, KEYS)
        assert states.known(["a", "b"]) == {"a": KnownJob("running", 2, 7), "b": None}
        assert states.known([]) == {}
        states.close()


def test_why_models_cannot_be_loaded_is_read_once_for_all_who_ask_within_a_second(redis_server):
    now = 1.0
    with redis.Redis.from_url(redis_server.url) as client:
        states = LiveStates(client, KEYS, clock=lambda: now)
        write_load_failures(client, KEYS, "b96e", {"one@1": "no room"})
        assert states.load_failures(["b96e"]) == {"b96e": {"one@1": "no room"}}
        write_load_failures(client, KEYS, "b96e", {"one@1": "no such folder"})
        assert states.load_failures(["b96e"]) == {"b96e": {"one@1": "no room"}}
        now += live_states.FAILURES_SECONDS
        assert states.load_failures(["b96e"]) == {"b96e": {"one@1": "no such folder"}}
        states.close()


def test_a_redis_that_does_not_answer_is_not_asked_again_for_a_while(redis_server, monkeypatch):
    monkeypatch.setattr(live_states, "PATIENCE_SECONDS", 0.2)
    proxy = StallingProxy(redis_server.port)
    now = 0.0
    with redis.Redis.from_url(proxy.url) as client:
        states = LiveStates(client, KEYS, clock=lambda: now)
        assert states.known(["a"]) == {"a": None}
        proxy.stall()
        assert states.known(["a"]) == {}
        proxy.go_on(late=False)
        assert states.known(["a"]) == {}
        now = live_states.REST_SECONDS
        assert states.known(["a"]) == {"a": None}
        states.close()
    proxy.close()
