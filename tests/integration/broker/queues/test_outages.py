"""Redis away, or there and taking no writes: what senders and workers make of it."""

import threading

import dramatiq
import pytest
import redis
from dramatiq import Worker

from support.waiting import PATIENCE_SECONDS, eventually
from tether.broker.redis.connections import RefusedForNow, each_answer, raise_if_refused
from tether.broker.scripts import BROKER_SCRIPTS
from tether.errors import BrokerUnavailable, TetherError

NEVER_MS = 10**8


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
        let_go.wait(PATIENCE_SECONDS)
        if len(runs) == 1:
            raise RuntimeError("so that it is retried")

    worker = Worker(broker, worker_threads=1, worker_timeout=100)
    worker.start()
    try:
        work.send()
        assert started.wait(PATIENCE_SECONDS)
        refuse_writes(redis_server, True)
        let_go.set()
        eventually(
            lambda: (
                broker.client.info("errorstats").get("errorstat_NOREPLICAS", {"count": 0})["count"] > 0
                or broker.client.info("stats").get("total_error_replies", 0) > 1
            ),
            within=PATIENCE_SECONDS,
            what="its answer is refused",
        )
        refuse_writes(redis_server, False)
        eventually(lambda: len(runs) == 2, within=PATIENCE_SECONDS, what="the retry has run")
        eventually(lambda: broker.do_qsize("jobs") == 0, within=PATIENCE_SECONDS, what="all is acknowledged")
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


@pytest.mark.parametrize("code", ["OOM", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN"])
def test_refusals_of_which_redis_py_hides_the_code_pass_too(code):
    error = redis.connection.DefaultParser.parse_error(f"{code} why")
    assert code not in str(error)
    with pytest.raises(RefusedForNow, match=f"^{code} why$"):
        raise_if_refused(error)


def test_a_command_that_a_full_redis_or_a_replica_refuses_passes(redis_server):
    with redis.Redis.from_url(redis_server.url) as client:
        for refuse in (
            lambda: client.config_set("maxmemory", 1),
            lambda: (client.config_set("maxmemory", 0), client.replicaof("127.0.0.1", 1)),
        ):
            refuse()
            with pytest.raises(redis.ResponseError) as caught:
                client.set("key", "value")
            with pytest.raises(RefusedForNow):
                raise_if_refused(caught.value)
            pipeline = client.pipeline(transaction=False)
            pipeline.get("key"), pipeline.set("key", "value")
            with pytest.raises(RefusedForNow):
                each_answer(pipeline)


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


def test_the_dead_are_found_in_a_redis_without_memory_and_what_they_held_is_given_back(
    open_broker, redis_server
):
    dead = open_broker(url=redis_server.url, heartbeat_interval=NEVER_MS)
    dead.enqueue(dramatiq.Message("jobs", "work", (1,), {}, {}))
    assert next(dead.consume("jobs")).holding.begin()
    dead._heart._disconnect()
    with redis.Redis.from_url(redis_server.url) as client:
        client.config_set("maxmemory", 1)
        living = open_broker(url=redis_server.url, heartbeat_interval=20, heartbeat_timeout=60)
        consumer = living.consume("jobs", timeout=PATIENCE_SECONDS * 1000)
        message = next(consumer)
        assert message.args == (1,)
        consumer.ack(message)
        assert living.client.zscore(living.keys.heartbeats, living.broker_id) is not None
        assert living.do_qsize("jobs") == 0
        client.config_set("maxmemory", 0)


def test_what_passes_the_memory_limit_touches_no_queue_of_any_name(open_broker, shared_redis_server):
    broker = open_broker(heartbeat_interval=NEVER_MS)
    broker.enqueue(dramatiq.Message("none", "work", (1,), {}, {}))
    broker.client.set(broker.keys.epoch, 1)
    BROKER_SCRIPTS.run(broker.client, "pool/withdraw", broker.keys.leases, "job", 1, "0")
    assert broker.do_qsize("none") == 1
    assert next(broker.consume("none", timeout=50)).args == (1,)
