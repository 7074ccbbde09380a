"""Nothing that somebody writes into a queue ends a worker; what cannot be run is kept to be looked at."""

import contextlib
import json

import dramatiq
import pytest
from dramatiq import Message, Worker
from dramatiq.broker import MessageProxy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.waiting import PATIENCE_SECONDS, eventually
from tether.errors import InvalidMessage, InvalidName

NEVER_MS = 10**9
SHARED_FIXTURE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
SOUND = {
    "queue_name": "jobs",
    "actor_name": "work",
    "args": [],
    "kwargs": {},
    "options": {},
    "message_id": "1",
    "message_timestamp": 0,
}


def plant(broker, data, queue="jobs"):
    """Write what no broker would into a queue."""
    prefix = broker.keys.prefix
    broker.client.hset(f"{prefix}:{queue}.msgs", "planted", data)
    broker.client.rpush(f"{prefix}:{queue}", "planted")


def as_json(value):
    return json.dumps(value).encode()


@st.composite
def almost_messages(draw):
    message = {**SOUND, draw(st.sampled_from(sorted(SOUND))): draw(json_values)}
    if draw(st.booleans()):
        message["options"] = {draw(st.sampled_from(["retries", "eta", "traceparent"])): draw(json_values)}
    if draw(st.booleans()):
        message.pop(draw(st.sampled_from(sorted(SOUND))))
    return as_json(message)


@SHARED_FIXTURE
@given(data=st.binary(max_size=200) | almost_messages() | json_values.map(as_json))
def test_any_bytes_in_a_queue_are_a_message_or_a_dead_letter(data, open_broker):
    broker = open_broker(heartbeat_interval=NEVER_MS)
    broker.client.flushdb()
    plant(broker, data)
    consumer = broker.consume("jobs", timeout=1)
    message = next(consumer)
    letters = broker.client.hgetall(f"{broker.keys.prefix}:jobs.XQ.msgs")
    if message is None:
        assert letters == {b"planted": data}
    else:
        assert isinstance(message, MessageProxy)
        assert message.queue_name == "jobs"
        assert not letters
        consumer.ack(message)
    assert broker.do_qsize("jobs") == 0


@pytest.mark.parametrize("retries", [10**6, True, -1])
def test_a_worker_outlives_what_it_cannot_run(open_broker, retries):
    broker = open_broker()
    seen = []

    @dramatiq.actor(broker=broker, queue_name="jobs")
    def work(number):
        seen.append(number)

    planted = [
        b"\x00\xff",
        b"{}",
        json.dumps({**SOUND, "queue_name": "another"}).encode(),
        json.dumps({**SOUND, "actor_name": "nobody"}).encode(),
        json.dumps({**SOUND, "options": {"eta": "soon"}}).encode(),
        json.dumps({**SOUND, "options": {"traceparent": 7, "retries": retries}}).encode(),
    ]
    for number, data in enumerate(planted):
        broker.client.hset(f"{broker.keys.prefix}:jobs.msgs", f"planted-{number}", data)
        broker.client.rpush(f"{broker.keys.prefix}:jobs", f"planted-{number}")
    worker = Worker(broker, worker_threads=2, worker_timeout=100)
    worker.start()
    try:
        work.send(1)
        eventually(lambda: 1 in seen, within=PATIENCE_SECONDS, what="the sound message has run")
        assert all(thread.is_alive() for thread in (*worker.workers, *worker.consumers.values()))
    finally:
        worker.stop()


@given(name=st.text(max_size=20) | st.binary(max_size=20) | st.none() | st.integers())
@SHARED_FIXTURE
def test_any_queue_name_is_used_as_it_is_or_refused_with_our_error(name, open_broker):
    broker = open_broker()
    message = Message(queue_name=name, actor_name="work", args=(), kwargs={}, options={})
    for use in (lambda: broker.declare_queue(name), lambda: broker.enqueue(message)):
        with contextlib.suppress(InvalidName):
            use()
    assert all(isinstance(queue, str) and ":" not in queue for queue in broker.queues)


NAMES_OF_OUR_OWN = ["infer", "jobs.DQ.DQ", "jobs.XQ", "jobs.msgs", "__acks__.x"]
NO_NAMES = ["a b", "", "9", "x" * 129, "a:b"]


@pytest.mark.parametrize("name", NAMES_OF_OUR_OWN + NO_NAMES)
def test_names_of_our_own_and_what_is_no_name_are_refused(open_broker, name):
    with pytest.raises(InvalidName):
        open_broker().declare_queue(name)


@pytest.mark.parametrize("args", [(object(),), ({1, 2},), (b"bytes",), (float,)])
def test_what_cannot_be_encoded_is_refused_and_leaves_nothing_behind(open_broker, args):
    broker = open_broker()
    with pytest.raises(InvalidMessage, match="work"):
        broker.enqueue(Message(queue_name="jobs", actor_name="work", args=args, kwargs={}, options={}))
    assert broker.do_qsize("jobs") == 0


def test_a_message_that_holds_itself_is_refused(open_broker):
    endless = []
    endless.append(endless)
    with pytest.raises(InvalidMessage):
        open_broker().enqueue(
            Message(queue_name="jobs", actor_name="work", args=(endless,), kwargs={}, options={})
        )


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), "soon", 2**60])
def test_a_delay_that_is_no_number_of_milliseconds_is_refused(open_broker, delay):
    with pytest.raises(InvalidMessage, match="delay"):
        open_broker().enqueue(Message(**{**SOUND, "args": ()}), delay=delay)
