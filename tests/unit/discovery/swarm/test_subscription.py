"""A subscription waits for its reader with a limit, and knows how long what it holds still lives."""

import threading

import pytest

from support.waiting import PATIENCE_SECONDS, join
from tether.discovery.port import Heard
from tether.discovery.swarm.frames import SwarmMessage
from tether.discovery.swarm.subscription import FULL, MAX_AT_ONCE, SwarmSubscription

LIFE = 15_000


class FakeClock:
    def __init__(self):
        self.now = 1_000

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def told():
    return []


@pytest.fixture
def subscription(clock, told):
    return SwarmSubscription(LIFE, clock, lambda: told.append("room"), lambda one: told.append(one))


def test_a_life_is_what_is_left_of_it_when_it_is_read(subscription, clock):
    subscription.put([SwarmMessage(1, 0, b"new"), SwarmMessage(1, 4_000, b"old")])
    clock.now += 500
    assert subscription.next(0) == [Heard(b"new", LIFE - 500), Heard(b"old", LIFE - 4_500)]
    assert subscription.next(0) == []


def test_what_is_put_comes_in_order_and_only_so_much_at_once(subscription):
    envelopes = [f"{number}".encode() for number in range(MAX_AT_ONCE + 1)]
    subscription.put([SwarmMessage(1, 0, envelope) for envelope in envelopes])
    first, second = subscription.next(0), subscription.next(0)
    assert [heard.envelope for heard in (*first, *second)] == envelopes
    assert (len(first), len(second)) == (MAX_AT_ONCE, 1)


def test_a_reader_that_waits_is_woken(subscription):
    found = []
    reader = threading.Thread(target=lambda: found.extend(subscription.next(PATIENCE_SECONDS)))
    reader.start()
    subscription.put([SwarmMessage(1, 0, b"x")])
    join(reader)
    assert [heard.envelope for heard in found] == [b"x"]


def test_it_says_when_it_is_full_and_once_when_it_has_room_again(subscription, told):
    subscription.put([SwarmMessage(1, 0, b"")] * (FULL - 1))
    assert not subscription.is_full
    subscription.put([SwarmMessage(1, 0, b"")])
    assert subscription.is_full
    while len(subscription._waiting) >= FULL // 2:
        assert not told
        assert subscription.next(0)
    assert told == ["room"]
    while subscription.next(0):
        pass
    assert told == ["room"]


def test_a_reader_that_was_never_late_is_not_spoken_of(subscription, told):
    subscription.put([SwarmMessage(1, 0, b"")] * 10)
    subscription.next(0)
    assert not told


def test_closing_tells_whoever_fills_it(subscription, told):
    subscription.close()
    assert told == [subscription]
