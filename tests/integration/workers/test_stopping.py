"""What a worker's stop leaves to plain actors."""

import threading

import dramatiq
import pytest

from support.waiting import PATIENCE_SECONDS, eventually, join
from tether.processes.stopping import StopDeadline
from tether_workers.stopping import StoppableWorker

WORK_SECONDS = 600
LONG_AFTER = 100.0


class Gate(dramatiq.Middleware):
    """Holds a thread that has taken a message, before its actor begins."""

    def __init__(self):
        self.reached, self.opened = threading.Event(), threading.Event()

    def before_process_message(self, broker, message):
        self.reached.set()
        assert self.opened.wait(PATIENCE_SECONDS)


class Clock:
    """Stands still until it is set forward, and counts who looks at it."""

    def __init__(self):
        self.now, self.looks = 0.0, 0

    def __call__(self):
        self.looks += 1
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_an_actor_whose_thread_has_only_taken_its_message_keeps_its_time(open_broker, clock):
    broker = open_broker()
    gate = Gate()
    broker.add_middleware(gate, before=type(broker.middleware[0]))
    began, may_end = threading.Event(), threading.Event()

    @dramatiq.actor(broker=broker)
    def long():
        began.set()
        assert may_end.wait(PATIENCE_SECONDS)

    deadline = StopDeadline(clock)
    worker = StoppableWorker(broker, queues=None, worker_threads=1, deadline=deadline)
    worker.start()
    long.send()
    assert gate.reached.wait(PATIENCE_SECONDS)
    stopping = threading.Thread(target=worker.stop, args=(WORK_SECONDS * 1000,))
    stopping.start()
    eventually(lambda: deadline.has_begun, PATIENCE_SECONDS, "the stop has begun")
    clock.now = LONG_AFTER
    looks = clock.looks
    eventually(lambda: clock.looks > looks + 4, PATIENCE_SECONDS, "the stop has looked what runs")
    gate.opened.set()
    assert began.wait(PATIENCE_SECONDS)
    assert deadline.remaining() > WORK_SECONDS - LONG_AFTER
    may_end.set()
    join(stopping)


def test_where_no_actor_runs_a_stop_is_short(open_broker, clock):
    broker = open_broker()
    """A thread that hangs elsewhere gets no actor's time."""
    hangs, is_hanging = threading.Event(), threading.Event()

    class Hanging(dramatiq.Middleware):
        def before_worker_thread_shutdown(self, broker, thread):
            is_hanging.set()
            assert hangs.wait(PATIENCE_SECONDS)

    broker.add_middleware(Hanging())
    deadline = StopDeadline(clock)
    worker = StoppableWorker(broker, queues=None, worker_threads=1, deadline=deadline)
    worker.start()
    stopping = threading.Thread(target=worker.stop, args=(WORK_SECONDS * 1000,))
    stopping.start()
    assert is_hanging.wait(PATIENCE_SECONDS)
    clock.now = 2.0
    eventually(lambda: deadline.remaining() < 10, PATIENCE_SECONDS, "the stop is short")
    hangs.set()
    join(stopping)
