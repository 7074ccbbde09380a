"""One deadline for all of a process's stop, and the thread that keeps to it."""

import threading

import pytest

from support.waiting import PATIENCE_SECONDS
from tether.processes.stopping import NOT_IN_TIME, SEVERED_SECONDS, StopDeadline, StopWatch
from tether.threads import STOP_SECONDS


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def deadline(clock):
    return StopDeadline(clock)


def test_before_a_stop_has_begun_a_step_gets_what_owners_wait_for_threads(deadline):
    deadline.shorten(1.0)
    assert not deadline.has_begun
    assert deadline.remaining() == STOP_SECONDS


def test_each_step_gets_what_remains(deadline, clock):
    deadline.begin(10.0)
    clock.now += 4.0
    assert deadline.remaining() == 6.0
    assert deadline.remaining(but=2.0) == 4.0
    clock.now += 10.0
    assert deadline.remaining() == 0.0


def test_a_second_beginning_gives_no_more_time(deadline, clock):
    deadline.begin(10.0)
    clock.now += 4.0
    deadline.begin(10.0)
    assert deadline.remaining() == 6.0


def test_a_deadline_comes_closer_and_never_goes_away(deadline, clock):
    deadline.begin(10.0)
    deadline.shorten(3.0)
    deadline.shorten(8.0)
    assert deadline.remaining() == 3.0


class Watched:
    """A watch over a deadline, and what it did."""

    def __init__(self, deadline):
        self.severed, self.ended = threading.Event(), threading.Event()
        self.status = None
        self.watch = StopWatch(deadline, sever=self.severed.set, end_process=self._end)

    def _end(self, status):
        self.status = status
        self.ended.set()


def test_connections_are_severed_before_the_deadline_and_the_process_ends_at_it(deadline, clock):
    watched = Watched(deadline)
    with watched.watch:
        deadline.begin(0.0 + SEVERED_SECONDS)
        assert watched.severed.wait(PATIENCE_SECONDS)
        assert not watched.ended.is_set()
        clock.now += SEVERED_SECONDS
        deadline.recheck()
        assert watched.ended.wait(PATIENCE_SECONDS)
    assert watched.status == NOT_IN_TIME


def test_a_process_that_ends_in_time_is_left_alone(deadline):
    watched = Watched(deadline)
    with watched.watch:
        deadline.begin(100.0)
    assert not watched.severed.is_set()
    assert not watched.ended.is_set()


def test_a_process_that_was_never_told_to_stop_is_left_alone(deadline):
    watched = Watched(deadline)
    with watched.watch:
        pass
    assert not watched.severed.is_set()
