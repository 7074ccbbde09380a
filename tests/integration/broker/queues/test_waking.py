"""Consumers wait on Redis: no lost wake-up, no herd, no busy loop."""

import random
import threading

import pytest
import redis
from dramatiq import Message
from dramatiq.errors import ConnectionClosed

from support.waiting import PATIENCE_SECONDS, eventually, join

NEVER_MS = 10**9
LONG_MS = 30_000


def make_message(number):
    return Message(queue_name="jobs", actor_name="work", args=(number,), kwargs={}, options={})


def calls(broker, command):
    return broker.client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"]


class Waiting:
    """Consumers that wait in threads of their own, until each has ended."""

    def __init__(self, brokers, *, messages_each=None):
        self.received = []
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._messages_each = messages_each
        self.threads = [
            threading.Thread(target=self._consume, args=(broker,), name="waiting") for broker in brokers
        ]
        for thread in self.threads:
            thread.start()

    def _consume(self, broker):
        consumer = broker.consume("jobs", prefetch=1, timeout=LONG_MS)
        count = 0
        while not self._ended.is_set():
            message = next(consumer)
            if message is None:
                continue
            with self._lock:
                self.received.append(message.args[0])
            consumer.ack(message)
            count += 1
            if count == self._messages_each:
                return
        consumer.close()

    def end(self, broker):
        """Wake everybody once more, to see that it is over."""
        self._ended.set()
        while any(thread.is_alive() for thread in self.threads):
            broker.enqueue(make_message("end"))
            for thread in self.threads:
                thread.join(0.01)


def wait_for_blocked(broker, count):
    eventually(
        lambda: broker.client.info("clients")["blocked_clients"] == count,
        within=PATIENCE_SECONDS,
        what=f"{count} consumers wait",
    )


def test_one_message_wakes_one_of_a_hundred_waiting_workers(open_broker, shared_redis_server):
    sender = open_broker()
    # Without a time limit of its socket, a consumer looks again only after LONG_MS.
    patient = redis.Redis.from_url(shared_redis_server.url, socket_timeout=None)
    brokers = [open_broker(heartbeat_interval=NEVER_MS, client=patient) for _ in range(100)]
    waiting = Waiting(brokers, messages_each=1)
    wait_for_blocked(sender, 100)

    for number in range(100):
        looks_before = calls(sender, "lpop")
        sender.enqueue(make_message(number))
        eventually(lambda: sender.do_qsize("jobs") == 0, within=PATIENCE_SECONDS, what="it is acknowledged")
        # Whoever looks into the queue pops from its list.
        assert calls(sender, "lpop") - looks_before == 1
    for thread in waiting.threads:
        join(thread)
    assert sorted(waiting.received) == list(range(100))


def test_no_wake_up_is_lost_between_many_senders_and_workers(open_broker):
    brokers = [open_broker(heartbeat_interval=NEVER_MS) for _ in range(6)]
    senders = [open_broker() for _ in range(3)]
    waiting = Waiting(brokers)
    randomness = random.Random(7)
    pauses = [[randomness.choice([0, 0, 0.0005, 0.002]) for _ in range(300)] for _ in senders]

    def send(index):
        never = threading.Event()
        for step, pause in enumerate(pauses[index]):
            senders[index].enqueue(make_message(index * 300 + step))
            never.wait(pause)

    threads = [threading.Thread(target=send, args=(index,), name="sender") for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        join(thread)
    # Nobody would look again before LONG_MS is over.
    eventually(lambda: len(waiting.received) == 900, within=LONG_MS / 2000, what="all have arrived")
    waiting.end(senders[0])
    assert sorted(number for number in waiting.received if number != "end") == list(range(900))


def test_an_idle_consumer_waits_and_looks_once_for_each_time_that_it_may_wait(open_broker):
    broker = open_broker(heartbeat_interval=NEVER_MS)
    consumer = broker.consume("jobs", timeout=100)
    assert next(consumer) is None
    before = {command: calls(broker, command) for command in ("evalsha", "blpop")}
    for _ in range(5):
        assert next(consumer) is None
    assert calls(broker, "blpop") - before["blpop"] == 5
    assert calls(broker, "evalsha") - before["evalsha"] == 5


def test_a_bell_that_a_dying_worker_took_along_rings_again_with_the_next_heartbeat(open_broker):
    broker, other = open_broker(heartbeat_interval=NEVER_MS), open_broker(heartbeat_interval=50)
    for one in (broker, other):
        one.declare_queue("jobs")
    broker.enqueue(make_message(1))
    assert broker.client.lpop(broker.keys.bell("jobs"))
    other.consume("elsewhere").start()
    eventually(
        lambda: broker.client.llen(broker.keys.bell("jobs")), within=PATIENCE_SECONDS, what="it rings again"
    )


def test_a_waiting_consumer_survives_a_restart_of_redis(open_broker, redis_server):
    broker = open_broker(url=redis_server.url)
    sender = open_broker(url=redis_server.url)
    consumer = broker.consume("jobs", timeout=LONG_MS)
    waits = threading.Thread(target=pytest.raises, args=(ConnectionClosed, next, consumer), name="waiting")
    waits.start()
    wait_for_blocked(sender, 1)
    redis_server.kill()
    join(waits)
    with pytest.raises(ConnectionClosed):
        next(broker.consume("jobs"))
    redis_server.start()

    consumer = broker.consume("jobs", timeout=LONG_MS)
    sender.enqueue(make_message(1))
    assert next(consumer).args == (1,)


def test_a_full_consumer_takes_more_once_half_of_what_it_may_hold_is_answered_for(open_broker):
    broker = open_broker(heartbeat_interval=NEVER_MS)
    for number in range(12):
        broker.enqueue(make_message(number))
    consumer = broker.consume("jobs", prefetch=8, timeout=50)
    held = [next(consumer) for _ in range(8)]
    assert [message.args[0] for message in held] == list(range(8))
    assert next(consumer) is None
    for message in held[:3]:
        consumer.ack(message)
    assert next(consumer) is None
    consumer.ack(held[3])
    assert next(consumer).args == (8,)
