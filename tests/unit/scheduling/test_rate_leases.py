"""Requests that are taken ahead of time."""

from __future__ import annotations

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from tether.broker.rate_buckets import BucketChange, ChargedGroup
from tether.rate_limits import UNITS, RateLimits, TakenUnits, give_back_to_buckets, take_from_buckets
from tether.scheduling.rate_charges import RateCharge, WantedCharge
from tether.scheduling.rate_limiter import RateLimiter

FAST = RateLimits(requests_per_minute=60_000, tokens_per_minute=60_000_000)
SLOW = RateLimits(requests_per_minute=2_900)


class Interrupted(BaseException):
    """What ends a thread from outside."""


class Time:
    seconds = 1_000.0

    def __call__(self):
        return self.seconds


class Shared:
    """Buckets in one place, as the script keeps them."""

    def __init__(self, time):
        self.time = time
        self.taken = {}
        self.calls = []
        self.error = None

    def charge(self, groups):
        self.calls.append([len(group.costs) for group in groups])
        if self.error:
            raise self.error
        return [self._charged(group) for group in groups]

    def _charged(self, group):
        now, taken, verdicts = round(self.time() * 1000), self.taken.get(group.tenant, TakenUnits()), ()
        if group.change is BucketChange.TAKE:
            taken, verdicts = take_from_buckets(taken, group.limits, group.costs, now)
        else:
            taken = give_back_to_buckets(taken, group.limits, group.costs, group.taken_at_ms, now)
        self.taken[group.tenant] = taken
        return ChargedGroup(taken, verdicts)


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def shared(time):
    return Shared(time)


@pytest.fixture
def limiter(shared, time):
    return RateLimiter(shared, clock=time)


def admitted(limiter, count=1, limits=FAST, tokens=10):
    answers = limiter.charge([WantedCharge("one", limits, tokens)] * count)
    return sum(isinstance(answer, RateCharge) for answer in answers)


def ask_often(limiter, time, count, limits=FAST):
    for _ in range(count):
        assert admitted(limiter, limits=limits) == 1
        time.seconds += 0.002


def test_who_asks_often_needs_few_round_trips(limiter, shared, time):
    ask_often(limiter, time, 500)
    assert len(shared.calls) < 20


@pytest.mark.parametrize("limits", [SLOW, RateLimits(tokens_per_minute=290_000), RateLimits(60_000, 290_000)])
def test_at_lower_rates_each_request_is_asked_for(limiter, shared, time, limits):
    assert limits.lease_ms == 0
    ask_often(limiter, time, 100, limits)
    assert shared.calls == [[1]] * 100


def test_a_lease_is_as_large_as_what_was_asked_for_lately(limiter, shared, time):
    ask_often(limiter, time, 3)
    assert shared.calls[:2] == [[1], [1, 100]]
    # Whoever comes now and then takes nothing ahead.
    for _ in range(3):
        time.seconds += 1
        assert admitted(limiter) == 1
    assert shared.calls[2:] == [[1]] * 3


def test_a_lease_ends(limiter, shared, time):
    ask_often(limiter, time, 3)
    time.seconds += 0.2
    assert admitted(limiter) == 1
    assert len(shared.calls) == 3


def test_a_batch_that_is_larger_than_what_is_left_is_asked_for(limiter, shared, time):
    ask_often(limiter, time, 3)
    assert admitted(limiter, 98) == 98
    assert len(shared.calls) == 2
    assert admitted(limiter, 98) == 98
    assert len(shared.calls) == 3


def test_limits_that_were_changed_are_asked_for(limiter, shared, time):
    ask_often(limiter, time, 3)
    assert admitted(limiter, limits=RateLimits(requests_per_minute=70_000)) == 1
    assert len(shared.calls) == 3


def test_from_a_bucket_that_is_half_empty_nothing_is_taken_ahead(limiter, shared, time):
    assert admitted(limiter, 31_000) == 31_000
    ask_often(limiter, time, 50)
    assert shared.calls[1:] == [[1]] * 50


def test_what_is_left_does_not_count_what_is_leased(limiter, time):
    assert admitted(limiter, 1_000) == 1_000
    ask_often(limiter, time, 3)
    (charge,) = limiter.charge([WantedCharge("one", FAST, 10)])
    # The lease has more than the few that have flowed back.
    assert FAST.request_capacity // UNITS - 1_004 <= charge.standings[0].remaining
    assert charge.standings[0].remaining < FAST.request_capacity // UNITS - 980


def test_while_redis_is_away_a_lease_is_used_up_first(limiter, shared, time):
    ask_often(limiter, time, 3)
    shared.error = redis.ConnectionError("gone")
    assert admitted(limiter, 50) == 50
    assert len(shared.calls) == 2
    time.seconds += 0.2
    assert admitted(limiter, 50) == 50
    assert len(shared.calls) == 3


def test_a_thread_that_is_interrupted_while_it_takes_a_lease_keeps_nobody_from_it(limiter, shared, time):
    ask_often(limiter, time, 1)
    shared.error = Interrupted()
    with pytest.raises(Interrupted):
        admitted(limiter)
    shared.error = None
    time.seconds += 0.002
    ask_often(limiter, time, 3)
    assert [len(call) for call in shared.calls] == [1, 2, 2]


def test_what_became_no_job_is_put_back(limiter, shared, time):
    ask_often(limiter, time, 3)
    before = shared.taken["one"].requests
    with limiter.charged([WantedCharge("one", FAST, 10)]):
        pass
    assert shared.calls[2:] == [[1]]
    assert shared.taken["one"].requests < before


steps = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([0, 1, 2, 5, 20, 60, 150, 199, 250]), st.integers(1, 12)),
    min_size=30,
    max_size=120,
)


@given(rate=st.integers(3_000, 60_000), burst=st.sampled_from([1, 2, 30, 60]), asked=steps)
def test_several_processes_with_leases_never_admit_more_than_the_rate_and_one_burst(rate, burst, asked):
    limits = RateLimits(requests_per_minute=rate, burst_seconds=burst)
    time = Time()
    shared = Shared(time)
    # So little is left that the bound is near.
    limiters = [RateLimiter(shared, clock=time) for _ in range(3)]
    used = []
    for which, pause_ms, count in asked:
        time.seconds = round(time.seconds + pause_ms / 1000, 3)
        count = count * (rate // 3_000)
        used.append((round(time.seconds * 1000), admitted(limiters[which], count, limits, tokens=1)))
    for first in range(len(used)):
        total = 0
        for at, count in used[first:]:
            total += count
            assert total * UNITS <= rate * (burst * 1_000 + at - used[first][0])


def test_a_lease_beside_a_whole_burst_elsewhere_is_no_more_than_the_burst(limiter, shared, time):
    ask_often(limiter, time, 3)
    # All that was taken has flowed back, and the lease still counts.
    time.seconds += 0.19
    elsewhere = sum(admitted(RateLimiter(shared, clock=time), 1_000) for _ in range(70))
    here = admitted(limiter, 90)
    assert here == 90
    assert 59_800 < here + elsewhere <= 60_000
