"""Redis away, or there and taking no writes: what senders and workers make of it."""

import threading

import dramatiq
import pytest
import redis
from dramatiq import Worker

from support.waiting import eventually
from tether.broker.connections import RefusedForNow, raise_if_refused
from tether.errors import BrokerUnavailable, TetherError

SECONDS = 30


@pytest.fixture
def broker(open_broker, redis_server):
    return open_broker(url=redis_server.url)


def refuse_writes(server, refuse):
    with redis.Redis.from_url(server.url) as client:
        client.config_set("min-replicas-to-write", 1 if refuse else 0)


def test_a_sender_without_redis_learns_where_it_should_be(broker, redis_server):
    @dramatiq.actor(broker=broker, queue_name="jobs")
    def work():
        pass

    work.send()
    redis_server.kill()
    with pytest.raises(BrokerUnavailable, match=f"127.0.0.1:{redis_server.port}") as caught:
        work.send()
    assert isinstance(caught.value, TetherError)
    assert isinstance(caught.value, redis.ConnectionError)


@pytest.mark.parametrize(("setting", "code"), [("maxmemory", "OOM"), ("min-replicas-to-write", "NOREPLICAS")])
def test_a_sender_learns_that_redis_takes_no_writes(broker, redis_server, setting, code):
    @dramatiq.actor(broker=broker, queue_name="jobs")
    def work():
        pass

    work.send()
    broker.client.config_set(setting, 1)
    with pytest.raises(BrokerUnavailable, match=code):
        work.send()
    broker.client.config_set(setting, 0)
    work.send()
    assert broker.do_qsize("jobs") == 2


def test_a_worker_answers_for_its_message_once_redis_takes_writes_again(broker, redis_server, monkeypatch):
    monkeypatch.setattr("dramatiq.worker.POST_PROCESS_MESSAGE_RETRY_DELAY_SECS", 0.1)
    monkeypatch.setattr("dramatiq.worker.CONSUMER_RESTART_DELAY_SECS", 0.1)
    started, let_go, runs = threading.Event(), threading.Event(), []

    @dramatiq.actor(broker=broker, queue_name="jobs", max_retries=1, min_backoff=1, max_backoff=2)
    def work():
        runs.append(len(runs))
        started.set()
        let_go.wait(SECONDS)
        if len(runs) == 1:
            raise RuntimeError("so that it is retried")

    worker = Worker(broker, worker_threads=1, worker_timeout=100)
    worker.start()
    try:
        work.send()
        assert started.wait(SECONDS)
        refuse_writes(redis_server, True)
        let_go.set()
        eventually(
            lambda: (
                broker.client.info("errorstats").get("errorstat_NOREPLICAS", {"count": 0})["count"] > 0
                or broker.client.info("stats").get("total_error_replies", 0) > 1
            ),
            within=SECONDS,
            what="its answer is refused",
        )
        refuse_writes(redis_server, False)
        eventually(lambda: len(runs) == 2, within=SECONDS, what="the retry has run")
        eventually(lambda: broker.do_qsize("jobs") == 0, within=SECONDS, what="all is acknowledged")
    finally:
        worker.stop()


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", True),
        (
            "ERR Error running script (call to f_0123): @user_script:9: @user_script: 9: -OOM command not",
            True,
        ),
        ("MISCONF Redis is configured to save RDB snapshots", True),
        ("READONLY You can't write against a read only replica.", True),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", False),
        ("NOPERM this user has no permissions to run the 'evalsha' command", False),
    ],
)
def test_refusals_that_pass_are_told_from_errors_that_do_not(text, passes):
    if passes:
        with pytest.raises(RefusedForNow):
            raise_if_refused(redis.ResponseError(text))
    else:
        raise_if_refused(redis.ResponseError(text))


def test_a_sender_with_a_wrong_password_learns_that(open_broker, redis_server):
    with redis.Redis.from_url(redis_server.url) as client:
        client.config_set("requirepass", "hunter2")
    broker = open_broker(url=redis_server.url.replace("redis://", "redis://:wrong-one@"))

    @dramatiq.actor(broker=broker, queue_name="jobs")
    def work():
        pass

    with pytest.raises(BrokerUnavailable, match="check the user and the password") as caught:
        work.send()
    assert "wrong-one" not in str(caught.value)
