"""The clock that decides: read from a reference, carried on by the monotonic clock."""

import pytest

from tether.clocks import MAX_SLEWED_MS, SLEW, ClockReading, SharedClock

EPOCH = 1_700_000_000_000
MINUTE = 60_000


class Hands:
    """A host's two clocks, and the reference's, moved by hand."""

    def __init__(self, host_ahead=0):
        self.elapsed, self.host_ahead, self.reference_ahead = 0, host_ahead, 0

    def monotonic(self):
        return 5_000 + self.elapsed

    def host(self):
        return EPOCH + self.elapsed + self.host_ahead

    def reference(self):
        return EPOCH + self.elapsed + self.reference_ahead

    def read(self, round_trip=0):
        asked_at = self.monotonic()
        self.elapsed += round_trip
        return ClockReading(self.reference() - round_trip / 2, asked_at, self.monotonic())


def opened(hands):
    clock = SharedClock(host_ms=hands.host, monotonic=hands.monotonic)
    clock.follow(hands.read())
    return clock


def test_before_the_reference_was_read_the_hosts_clock_counts():
    hands = Hands(host_ahead=10 * MINUTE)
    clock = SharedClock(host_ms=hands.host, monotonic=hands.monotonic)
    assert clock.now_ms() == EPOCH + 10 * MINUTE
    assert clock.follow(hands.read()) == 0
    assert clock.now_ms() == EPOCH


def test_a_host_whose_clock_is_ahead_or_set_back_goes_by_the_reference():
    hands = Hands(host_ahead=10 * MINUTE)
    clock = opened(hands)
    hands.host_ahead = -20 * MINUTE
    hands.elapsed += 1_234
    assert clock.now_ms() == EPOCH + 1_234


@pytest.mark.parametrize("round_trip", [2, 400])
def test_half_the_round_trip_is_taken_off(round_trip):
    hands = Hands()
    clock = SharedClock(host_ms=hands.host, monotonic=hands.monotonic)
    clock.follow(hands.read(round_trip))
    assert clock.now_ms() == hands.reference()


def test_what_a_measurement_cannot_tell_moves_no_clock():
    hands = Hands()
    clock = opened(hands)
    hands.reference_ahead = 90
    assert clock.follow(hands.read(round_trip=200)) == 0
    assert clock.now_ms() == EPOCH + 200
    assert clock.follow(hands.read(round_trip=10)) == pytest.approx(90)
    assert clock.now_ms() == hands.reference()


def test_a_reference_that_is_set_ahead_is_followed_at_once():
    hands = Hands()
    clock = opened(hands)
    hands.reference_ahead = 10 * MINUTE
    clock.follow(hands.read())
    assert clock.now_ms() == hands.reference()


def test_where_the_reference_is_set_back_time_goes_slower_and_never_back():
    hands = Hands()
    clock = opened(hands)
    hands.reference_ahead = -5 * MINUTE
    last, until = clock.now_ms(), 5 * MINUTE / SLEW
    assert clock.follow(hands.read()) == pytest.approx(-5 * MINUTE)
    assert clock.now_ms() == last
    while hands.elapsed < until:
        hands.elapsed += 30_000
        clock.follow(hands.read())
        now = clock.now_ms()
        assert now - last == pytest.approx(30_000 * (1 - SLEW), abs=2)
        last = now
    assert clock.now_ms() == pytest.approx(hands.reference(), abs=2)


def test_a_delay_is_a_little_longer_where_the_reference_was_set_back():
    hands = Hands()
    clock = opened(hands)
    due_at = clock.now_ms() + 5_000
    hands.reference_ahead = -10 * MINUTE
    clock.follow(hands.read())
    hands.elapsed += 5_600
    assert clock.now_ms() >= due_at


def test_a_reference_that_was_wrong_by_far_is_followed_back():
    hands = Hands()
    clock = opened(hands)
    hands.reference_ahead = -MAX_SLEWED_MS - 1
    clock.follow(hands.read())
    assert clock.now_ms() == hands.reference()
