"""Clients that are closed while other threads wait for replies."""

import threading

import pytest
import redis

from support.waiting import PATIENCE_SECONDS, eventually, join
from tether.broker.redis.connections import RefusedForNow, connect, without_retries


@pytest.fixture
def admin(redis_server):
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


def others(admin):
    """The connections of everybody else."""
    return [each for each in admin.client_list() if each["cmd"] != "client|list" and each["cmd"] != "client"]


def kinds(url):
    yield "connect", connect(url)
    yield "without_retries", without_retries(redis.Redis.from_url(url))


@pytest.mark.parametrize("kind", ["connect", "without_retries"])
def test_a_command_gets_its_reply_though_its_client_is_closed(redis_server, admin, kind):
    client = dict(kinds(redis_server.url))[kind]
    outcomes = []

    def wait():
        try:
            outcomes.append(client.blpop(["list"], timeout=4))
        except Exception as error:
            outcomes.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    eventually(lambda: admin.info("clients")["blocked_clients"] == 1, PATIENCE_SECONDS, "a command waits")
    client.close()
    admin.rpush("list", "value")
    join(waiting)
    assert outcomes == [(b"list", b"value")]
    eventually(lambda: others(admin) == [], PATIENCE_SECONDS, "the connection is closed as it is returned")


def test_a_client_that_was_closed_keeps_no_connection(redis_server, admin):
    client = connect(redis_server.url)
    client.ping()
    assert len(others(admin)) == 1
    client.close()
    eventually(lambda: others(admin) == [], PATIENCE_SECONDS, "the idle connection is closed")
    assert client.ping()
    eventually(lambda: others(admin) == [], PATIENCE_SECONDS, "one that came later is closed, too")


@pytest.mark.parametrize("kind", ["connect", "without_retries"])
def test_a_command_that_redis_refuses_for_now_is_an_outage_and_one_that_is_wrong_is_not(
    redis_server, admin, kind
):
    client = dict(kinds(redis_server.url))[kind]
    admin.set("text", "value")
    admin.config_set("maxmemory", 1)
    try:
        with pytest.raises(RefusedForNow, match="OOM"):
            client.xadd("stream", {"field": "value"})
    finally:
        admin.config_set("maxmemory", 0)
    assert client.xadd("stream", {"field": "value"})
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        client.xadd("text", {"field": "value"})
    client.close()
