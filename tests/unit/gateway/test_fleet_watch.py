"""One reader of the fleet serves all who watch, and is there while somebody does."""

import contextlib
import json
import threading
from queue import SimpleQueue
from types import SimpleNamespace

import pytest

from support.presences import OTHER_KEY, apply, presence
from support.waiting import PATIENCE_SECONDS, eventually
from tether.discovery.fleet.fleet import Fleet
from tether.errors import BrokerUnavailable, ClientClosed
from tether.gateway.fleet_watch import FleetChangeEncoder, FleetWatch
from tether.streams.events import StreamEvent

WORKER, OTHER = presence().worker_id, presence(OTHER_KEY).worker_id


class Opened:
    """A fleet, its view, and who opens it; counts how often, and how many are open."""

    now = 0
    settings = SimpleNamespace(presence=SimpleNamespace(interval=100))

    def __init__(self):
        self.fleet = apply(Fleet(), presence(), 0)
        self.view = self
        self.names = {WORKER: "box"}
        self.opened = self.open = 0
        self.silence = 0
        self.fault = None

    def staleness_ms(self):
        return self.silence

    @contextlib.contextmanager
    def __call__(self, settings):
        if self.fault is not None:
            raise self.fault
        self.opened += 1
        self.open += 1
        try:
            yield self
        finally:
            self.open -= 1


@pytest.fixture
def opened():
    return Opened()


@pytest.fixture
def watch(opened):
    made = FleetWatch(None, lambda: 7, opened=opened)
    yield made
    made.close()


def told(queue):
    found = queue.get(timeout=PATIENCE_SECONDS)
    return (found.kind, found.details.get("worker_id")) if isinstance(found, StreamEvent) else found


def test_who_is_refused_for_want_of_a_thread_does_not_keep_the_fleet_open(watch, opened, monkeypatch):
    start = threading.Thread.start

    def refuse(thread):
        monkeypatch.setattr(threading.Thread, "start", start)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    refused, taken = SimpleQueue(), SimpleQueue()
    with pytest.raises(RuntimeError):
        watch.follow(refused.put)
    watcher = watch.follow(taken.put)
    assert told(taken) == ("present", WORKER)
    watcher.close()
    eventually(lambda: opened.opened == 1 and opened.open == 0, 20, "the fleet is closed")
    assert refused.empty()


def test_all_who_watch_share_a_reader_that_ends_with_the_last_of_them(watch, opened):
    queues = [SimpleQueue() for _ in range(3)]
    watchers = [watch.follow(queue.put) for queue in queues]
    assert [told(queue) for queue in queues] == [("present", WORKER)] * 3
    opened.fleet = apply(opened.fleet, presence(OTHER_KEY), 0)
    assert [told(queue) for queue in queues] == [("joined", OTHER)] * 3
    late = SimpleQueue()
    watchers.append(watch.follow(late.put))
    assert sorted(told(late) for _ in range(2)) == sorted([("present", WORKER), ("present", OTHER)])
    assert (opened.opened, opened.open) == (1, 1)
    for watcher in watchers:
        watcher.close()
    eventually(lambda: opened.open == 0, PATIENCE_SECONDS, "the fleet is closed")
    assert all(queue.empty() for queue in (*queues, late))
    again = SimpleQueue()
    watch.follow(again.put)
    assert told(again)[0] == "present"
    assert opened.opened == 2


def test_a_redis_that_does_not_respond_is_told_once(watch, opened):
    queue = SimpleQueue()
    watch.follow(queue.put)
    assert told(queue) == ("present", WORKER)
    opened.silence = 151
    assert told(queue) == ("away", None)
    late = SimpleQueue()
    watch.follow(late.put)
    assert [told(late) for _ in range(2)] == [("away", None), ("present", WORKER)]
    opened.silence = 0
    assert [told(each) for each in (queue, late)] == [("back", None)] * 2


def test_a_fleet_that_cannot_be_read_ends_those_who_watch_and_not_the_next(watch, opened):
    opened.fault = BrokerUnavailable("Redis at 10.0.0.1:6379 is away")
    queue = SimpleQueue()
    watch.follow(queue.put)
    error = told(queue)
    assert (error.code, "10.0.0.1" in error.outward) == ("broker_unavailable", False)
    opened.fault = None
    watch.follow(queue.put)
    assert told(queue) == ("present", WORKER)


def test_at_the_end_all_are_told_and_nobody_is_let_in(watch, opened):
    queue = SimpleQueue()
    watch.follow(queue.put)
    assert told(queue) == ("present", WORKER)
    watch.close()
    assert isinstance(told(queue), ClientClosed)
    with pytest.raises(ClientClosed):
        watch.follow(queue.put)
    assert not [one for one in threading.enumerate() if one.name == "tether-gateway-fleet-watch"]


def test_the_first_event_says_when_to_come_back():
    encoder = FleetChangeEncoder()
    event = StreamEvent(kind="left", details={"kind": "left"})
    first, second = (b"".join(encoder.of_event(event)).decode() for _ in range(2))
    assert (first, second) == (f"retry: 1000\n{second}", 'event: left\ndata: {"kind":"left"}\n\n')
    assert json.loads(encoder.of_error(BrokerUnavailable("away")).decode().split("data: ")[1])["retryable"]
