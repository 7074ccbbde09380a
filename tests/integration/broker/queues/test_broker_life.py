"""A broker's life as others see it: heartbeats, stalls, forks, the end; and what its messages carry."""

import os
import re
import threading

import dramatiq
import pytest
import redis
from dramatiq import Message, Worker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import ConnectionClosed
from dramatiq.middleware import Middleware, SkipMessage
from dramatiq.results import ResultMissing, Results
from dramatiq.results.backends import RedisBackend
from opentelemetry import trace

from support.paths import ROOT
from support.waiting import PATIENCE_SECONDS, eventually
from tether.broker.queues.heart import Suspect, recover
from tether.errors import ConfigError
from tether.telemetry.trace_context import read_trace_context

NEVER_MS = 10**9
KEYS_REFERENCE = ROOT / "docs" / "reference" / "redis-keys.md"
PLAIN_KEYS, _, _ = KEYS_REFERENCE.read_text().partition("# Keys of pool jobs")


def send(broker, number, queue="jobs"):
    return broker.enqueue(Message(queue_name=queue, actor_name="work", args=(number,), kwargs={}, options={}))


def hearts():
    return [thread for thread in threading.enumerate() if thread.name == "tether-heart"]


def test_a_heart_beats_from_the_first_consumer_to_the_close(open_broker):
    broker = open_broker()
    assert not hearts()
    broker.consume("jobs").start()
    broker.consume("more-jobs").start()
    assert len(hearts()) == 1
    broker.close()
    assert not hearts()
    assert broker.client.zscore(broker.keys.heartbeats, broker.broker_id) is None


def test_a_worker_that_stops_ends_every_thread_it_started(open_broker):
    before = set(threading.enumerate())
    broker = open_broker()
    broker.declare_queue("jobs")
    worker = Worker(broker, worker_threads=2, worker_timeout=50)
    worker.start()
    eventually(hearts, within=PATIENCE_SECONDS, what="its heart beats")
    assert len(set(threading.enumerate()) - before) == 2 + 2 + 1
    worker.stop()
    assert set(threading.enumerate()) == before


def test_a_closed_broker_that_holds_messages_is_left_to_be_recovered(open_broker):
    broker = open_broker()
    send(broker, 1)
    next(broker.consume("jobs"))
    broker.close()
    assert broker.client.zscore(broker.keys.heartbeats, broker.broker_id) is not None


def test_a_stalled_worker_s_messages_go_to_others_and_it_learns_so(open_broker):
    stalled = open_broker(heartbeat_interval=NEVER_MS)
    send(stalled, 1)
    consumer = stalled.consume("jobs")
    message = next(consumer)
    assert message.holding.begin()

    other = open_broker(heartbeat_interval=20, heartbeat_timeout=60, stall_timeout=200)
    others = other.consume("jobs", timeout=PATIENCE_SECONDS * 1000)
    taken_over = next(others)
    assert taken_over.args == (1,)

    stalled.heartbeat_timeout = 0
    stalled.make_sure_of_heartbeat()
    consumer.ack(message)
    assert stalled.do_qsize("jobs") == 1, "the late acknowledgement ended nothing"
    others.ack(taken_over)
    assert stalled.do_qsize("jobs") == 0


def test_a_living_worker_with_a_long_running_actor_keeps_its_message(open_broker):
    busy = open_broker(heartbeat_interval=20)
    send(busy, 1)
    message = next(busy.consume("jobs"))
    other = open_broker(heartbeat_interval=20, heartbeat_timeout=100, stall_timeout=200)
    others = other.consume("jobs", timeout=600)
    assert next(others) is None
    assert busy.holdings.ids("jobs") == [message.holding.redis_id]


def test_a_dead_worker_of_dramatiqs_own_broker_is_recovered_in_a_shared_namespace(open_broker):
    broker = open_broker(namespace="shared", hash_tag=False, heartbeat_interval=20)
    stock = RedisBroker(client=broker.client, namespace="shared")
    stock.declare_queue("only-known-to-it")
    send(stock, 1, queue="only-known-to-it")
    assert stock.do_fetch("only-known-to-it", 1)
    assert broker.client.llen("shared:only-known-to-it") == 0
    broker.client.zadd("shared:__heartbeats__", {stock.broker_id: 1})
    broker.consume("jobs").start()
    eventually(
        lambda: broker.client.llen("shared:only-known-to-it") == 1,
        within=PATIENCE_SECONDS,
        what="it is given back",
    )


def test_a_forked_process_takes_messages_under_a_name_of_its_own(open_broker):
    broker = open_broker()
    broker.consume("jobs").start()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        broker.consume("jobs").start()
        os.write(writing, f"{broker.broker_id} {len(hearts())}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    name, beating = os.read(reading, 100).decode().split()
    os.close(reading)
    os.close(writing)
    assert name != broker.broker_id
    assert beating == "1"


def test_the_trace_of_who_sends_goes_on_in_the_actor_and_its_retries(open_broker):
    broker = open_broker()
    seen = []

    @dramatiq.actor(broker=broker, queue_name="jobs", max_retries=1, min_backoff=1, max_backoff=2)
    def work():
        seen.append(trace.get_current_span().get_span_context().trace_id)
        raise RuntimeError("so that it is retried")

    sent = read_trace_context(work.send().options["traceparent"])
    worker = Worker(broker, worker_threads=1, worker_timeout=50)
    worker.start()
    try:
        eventually(lambda: len(seen) == 2, within=PATIENCE_SECONDS, what="both attempts have run")
    finally:
        worker.stop()
    assert seen == [sent.trace_id] * 2


def test_a_message_sent_while_an_actor_runs_is_there_at_once(open_broker):
    broker = open_broker()
    sizes = []

    @dramatiq.actor(broker=broker, queue_name="jobs")
    def work():
        later.send()
        sizes.append(broker.client.llen(f"{broker.keys.prefix}:later"))

    @dramatiq.actor(broker=broker, queue_name="later")
    def later():
        raise AssertionError("no worker looks into this queue")

    worker = Worker(broker, queues={"jobs"}, worker_threads=1, worker_timeout=50)
    worker.start()
    try:
        work.send()
        broker.join("jobs", timeout=PATIENCE_SECONDS * 1000)
    finally:
        worker.stop()
    assert sizes == [1]


@pytest.mark.parametrize("crashes", [1, 3])
def test_deaths_count_as_attempts(open_broker, crashes):
    broker = open_broker()
    ran = []

    @dramatiq.actor(broker=broker, queue_name="jobs", max_retries=2, on_retry_exhausted="exhausted")
    def work():
        ran.append("work")

    @dramatiq.actor(broker=broker, queue_name="jobs")
    def exhausted(message, retries):
        ran.append(("exhausted", retries["retries"]))

    redis_id = work.send().options["redis_message_id"]
    broker.client.hset(f"{broker.keys.prefix}:crashes:jobs", redis_id, crashes)
    worker = Worker(broker, worker_threads=1, worker_timeout=50)
    worker.start()
    try:
        broker.join("jobs", timeout=PATIENCE_SECONDS * 1000)
        worker.join()
    finally:
        worker.stop()
    assert ran == (["work"] if crashes == 1 else [("exhausted", 2)])
    assert broker.client.hlen(f"{broker.keys.prefix}:jobs.XQ.msgs") == (0 if crashes == 1 else 1)
    assert not broker.client.exists(f"{broker.keys.prefix}:crashes:jobs")


def test_every_key_in_redis_is_in_the_reference(open_broker):
    broker = open_broker(heartbeat_interval=20)
    other = open_broker(heartbeat_interval=NEVER_MS)
    consumer = broker.consume("jobs", prefetch=4, timeout=50)
    delayed = other.consume("jobs.DQ", timeout=50)
    patterns = [
        re.sub(r"<\w+>", "[^:]+", re.escape(key).replace(r"\<", "<").replace(r"\>", ">"))
        for key in re.findall(r"^\| `(\S+)` \|", PLAIN_KEYS, re.MULTILINE)
    ]
    seen = set()

    def look():
        for key in broker.client.scan_iter(f"{broker.keys.prefix}:*"):
            name = key.decode().removeprefix(f"{broker.keys.prefix}:")
            fitting = [pattern for pattern in patterns if re.fullmatch(pattern, name)]
            assert fitting, f"{name} is not in the reference"
            seen.update(fitting)

    for number in range(3):
        send(broker, number)
    other.enqueue(Message("jobs", "work", (), {}, {}), delay=NEVER_MS)
    held = next(consumer), next(delayed)
    broker.mark_begun(held[0].holding)
    consumer.nack(next(consumer))
    eventually(lambda: broker.client.keys("*begun:*"), within=PATIENCE_SECONDS, what="the mark arrives")
    look()
    broker.client.zadd(broker.keys.heartbeats, {other.broker_id: 1})
    recover(broker, broker.client, Suspect(other.broker_id, b"1", NEVER_MS, is_ours=True))
    broker.client.hset(f"{broker.keys.prefix}:crashes:jobs", "id", 1)
    broker.client.set(f"{broker.keys.prefix}:retried:jobs:id:1", "id")
    broker.client.hset(f"{broker.keys.prefix}:bucket:tenant", "at", 1)
    look()
    assert seen == set(patterns), f"not seen: {set(patterns) - seen}"


@pytest.mark.parametrize(
    "commands",
    [["+@all"], ["+@all", "-client", "+client|setname", "+client|list"]],
    ids=["any", "no replies off"],
)
def test_begin_marks_arrive_and_leave_no_reply_behind(open_broker, redis_server, commands):
    redis.Redis.from_url(redis_server.url).acl_setuser(
        "worker", enabled=True, nopass=True, keys=["*"], commands=commands
    )
    address = redis_server.url.replace("redis://", "redis://worker:any@")
    broker = open_broker(url=address, heartbeat_interval=NEVER_MS)
    for number in range(10):
        send(broker, number)
    consumer = broker.consume("jobs", prefetch=10)
    for message in [next(consumer) for _ in range(10)]:
        begun = broker.keys.begun(broker.broker_id, "jobs")
        broker.mark_begun(message.holding)
        eventually(
            lambda begun=begun, message=message: broker.client.sismember(begun, message.holding.redis_id),
            within=PATIENCE_SECONDS,
            what="the mark arrives",
        )
        # A reply too many would be taken for this one's.
        assert broker.do_ack("jobs", message.holding.redis_id) == 1
        assert broker.do_ack("jobs", message.holding.redis_id) == 0
    assert broker.do_qsize("jobs") == 0


def test_a_client_that_decodes_responses_is_refused(open_broker, shared_redis_server):
    client = redis.Redis.from_url(shared_redis_server.url, decode_responses=True)
    with pytest.raises(ConfigError, match="decode_responses"):
        open_broker(client=client)


def connections(server):
    with redis.Redis.from_url(server.url) as client:
        return {entry["id"] for entry in client.client_list() if entry["id"] != str(client.client_id())}


def test_a_closed_broker_leaves_no_connection_open(redis_server, open_broker):
    broker = open_broker(url=redis_server.url)
    broker.declare_queue("jobs")
    worker = Worker(broker, worker_threads=2, worker_timeout=50)
    worker.start()
    send(broker, 1)
    eventually(lambda: len(connections(redis_server)) > 2, within=PATIENCE_SECONDS, what="it has connected")
    worker.stop()
    broker.close()
    eventually(
        lambda: not connections(redis_server), within=PATIENCE_SECONDS, what="all its connections are closed"
    )


def test_who_died_before_redis_s_clock_was_set_back_is_found(open_broker):
    dead = open_broker(heartbeat_interval=NEVER_MS)
    send(dead, 1)
    next(dead.consume("jobs"))
    dead._heart._disconnect()
    seconds, _ = dead.client.time()
    # As a clock left it that was an hour ahead.
    dead.client.zadd(dead.keys.heartbeats, {dead.broker_id: seconds * 1000 + 3_600_000})
    living = open_broker(heartbeat_interval=10, heartbeat_timeout=100)
    living.consume("more-jobs").start()
    eventually(
        lambda: living.client.llen(f"{living.keys.prefix}:jobs"),
        within=PATIENCE_SECONDS,
        what="it is given back",
    )


def test_a_worker_that_stops_leaves_the_heart_to_another_one_of_its_process(open_broker):
    broker = open_broker()
    broker.declare_queue("jobs")
    workers = [Worker(broker, worker_threads=1, worker_timeout=50) for _ in range(2)]
    for worker in workers:
        worker.start()
    eventually(lambda: broker._consumers == 4, within=PATIENCE_SECONDS, what="both consume")
    workers[0].stop()
    assert len(hearts()) == 1
    workers[1].stop()
    assert not hearts()


def test_a_program_without_workers_finds_the_dead_when_it_looks_twice(open_broker):
    dead = open_broker(heartbeat_interval=NEVER_MS)
    send(dead, 1)
    next(dead.consume("jobs"))
    dead._heart._disconnect()
    looking = open_broker(heartbeat_timeout=50, maintenance_chance=1_000_000)
    looking.declare_queue("jobs")

    def look():
        looking.do_qsize("jobs")
        return looking.client.llen(f"{looking.keys.prefix}:jobs")

    eventually(look, within=PATIENCE_SECONDS, what="it is given back")


def test_a_message_that_is_delayed_by_an_option_alone_survives_a_lost_connection(open_broker):
    broker = open_broker(heartbeat_interval=NEVER_MS)
    broker.enqueue(Message("jobs", "work", (1,), {}, {"eta": 2**52}))
    consumer = broker.consume("jobs")
    assert next(consumer).args == (1,)
    # What Dramatiq does: it forgets its delayed messages, closes the consumer, and consumes anew.
    consumer.close()
    assert next(broker.consume("jobs")).args == (1,)


def test_an_unreadable_message_comes_again_if_redis_is_away_when_it_is_found(open_broker, monkeypatch):
    broker = open_broker(heartbeat_interval=NEVER_MS)
    broker.client.hset(f"{broker.keys.prefix}:jobs.msgs", "planted", b"{")
    broker.client.rpush(f"{broker.keys.prefix}:jobs", "planted")
    consumer = broker.consume("jobs", timeout=50)

    def away(holding):
        raise redis.ConnectionError

    monkeypatch.setattr(broker, "nack", away)
    with pytest.raises(ConnectionClosed):
        next(consumer)
    consumer.close()
    monkeypatch.undo()
    assert next(broker.consume("jobs", timeout=50)) is None
    assert broker.client.hlen(f"{broker.keys.prefix}:jobs.XQ.msgs") == 1


def test_a_message_that_others_took_over_gets_no_result_here(open_broker, shared_redis_server):
    broker = open_broker(heartbeat_interval=NEVER_MS)
    backend = RedisBackend(client=redis.Redis.from_url(shared_redis_server.url))
    broker.add_middleware(Results(backend=backend))

    @dramatiq.actor(broker=broker, queue_name="jobs", store_results=True)
    def work():
        return 42

    sent = work.send()
    message = next(broker.consume("jobs"))
    message.holding.lose()
    with pytest.raises(SkipMessage):
        broker.emit_before("process_message", message)
    broker.emit_after("skip_message", message)
    with pytest.raises(ResultMissing):
        backend.get_result(sent)


def test_what_a_stop_gave_up_on_counts_for_no_attempt(open_broker):
    broker, other = open_broker(), open_broker(heartbeat_interval=20, heartbeat_timeout=60)
    send(broker, 1)
    message = next(broker.consume("jobs"))
    broker.mark_begun(message.holding)
    begun = broker.keys.begun(broker.broker_id, "jobs")
    eventually(lambda: broker.client.exists(begun), within=PATIENCE_SECONDS, what="the mark arrives")
    broker.close()
    assert next(other.consume("jobs", timeout=PATIENCE_SECONDS * 1000)).holding.crashes == 0


def test_what_an_after_hook_enqueues_is_placed_with_the_acknowledgement(open_broker):
    broker = open_broker()
    sizes = []

    class Follow(Middleware):
        def after_process_message(self, broker, message, *, result=None, exception=None):
            if message.actor_name == "work":
                send(broker, 2, queue="later")
                sizes.append(broker.client.llen(f"{broker.keys.prefix}:later"))

    broker.add_middleware(Follow())

    @dramatiq.actor(broker=broker, queue_name="jobs")
    def work():
        pass

    worker = Worker(broker, queues={"jobs"}, worker_threads=1, worker_timeout=50)
    worker.start()
    try:
        work.send()
        broker.join("jobs", timeout=PATIENCE_SECONDS * 1000)
    finally:
        worker.stop()
    assert sizes == [0]
    assert broker.client.llen(f"{broker.keys.prefix}:later") == 1


@pytest.mark.parametrize("limit", ["0.05", "0.2", "3"])
def test_a_short_time_limit_of_the_socket_is_no_outage(open_broker, shared_redis_server, limit):
    broker = open_broker(url=f"{shared_redis_server.url}?socket_timeout={limit}")
    consumer = broker.consume("jobs", timeout=700)
    assert next(consumer) is None
    assert next(consumer) is None
