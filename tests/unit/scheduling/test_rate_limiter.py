"""Rate limits while Redis answers, is away, and is back, without one."""

import threading

import pytest
import redis

from support.waiting import PATIENCE_SECONDS, join
from tether.broker.rate_buckets import BucketChange, ChargedGroup
from tether.errors import CommitUnknown, InvalidRequest, RateLimited, StoreUnavailable
from tether.rate_limits import (
    RateLimits,
    TakenUnits,
    give_back_to_buckets,
    owe_to_buckets,
    take_from_buckets,
)
from tether.scheduling import rate_limiter
from tether.scheduling.rate_charges import RateCharge, WantedCharge
from tether.scheduling.rate_limiter import REST_SECONDS, RateLimiter

ONE_A_SECOND = RateLimits(requests_per_minute=60, burst_seconds=2)


class Shared:
    """Buckets that all processes share, as the script keeps them; they can be away."""

    def __init__(self, clock):
        self.clock = clock
        self.taken = {}
        self.calls = 0
        self.error = None

    def charge(self, groups):
        self.calls += 1
        if self.error:
            raise self.error
        return [self._charged(group) for group in groups]

    def _charged(self, group):
        # Another clock than that of the process.
        now, taken, verdicts = self.clock() + 5_000_000, self.taken.get(group.tenant, TakenUnits()), ()
        if group.change is BucketChange.TAKE:
            taken, verdicts = take_from_buckets(taken, group.limits, group.costs, now)
        elif group.change is BucketChange.OWE:
            taken = owe_to_buckets(taken, group.limits, group.costs, now)
        else:
            taken = give_back_to_buckets(taken, group.limits, group.costs, group.taken_at_ms, now)
        self.taken[group.tenant] = taken
        return ChargedGroup(taken, verdicts)

    def close(self):
        pass


class Time:
    seconds = 1_000.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def shared(time):
    return Shared(lambda: int(time.seconds * 1000))


@pytest.fixture
def limiter(shared, time):
    return RateLimiter(shared, clock=time)


def want(tenant="one", limits=ONE_A_SECOND, tokens=1, *, is_owed=False):
    return WantedCharge(tenant, limits, tokens, is_owed)


def admitted(limiter, *wanted):
    return [isinstance(answer, RateCharge) for answer in limiter.charge(wanted or [want()])]


def test_who_is_not_limited_asks_nobody(limiter, shared):
    assert limiter.charge([None, want(limits=RateLimits())]) == [None, None]
    assert shared.calls == 0


def test_requests_of_many_tenants_are_one_call_each_tenants_in_order(limiter, shared):
    wanted = [want(), want("two"), None, want(), want(), want("two")]
    assert admitted(limiter, *wanted) == [True, True, False, True, False, True]
    assert shared.calls == 1


def test_a_refusal_says_what_ran_out_and_for_how_long(limiter):
    limits = RateLimits(requests_per_minute=600, tokens_per_minute=60, burst_seconds=10)
    _, refusal = limiter.charge([want(limits=limits, tokens=10), want(limits=limits, tokens=3)])
    assert isinstance(refusal, RateLimited)
    assert str(refusal) == (
        "tenant 'one' has used up its rate limit of 60 tokens a minute, and this request counts as 3: try "
        "again in 3 s"
    )
    assert (refusal.retry_after, refusal.measure, refusal.retryable) == (3.0, "tokens", True)
    assert [(one.measure, one.remaining) for one in refusal.standings] == [("requests", 99), ("tokens", 0)]


def test_what_never_fits_is_refused_for_good_and_not_charged(limiter, shared):
    limits = RateLimits(tokens_per_minute=60, burst_seconds=10)
    (refusal,) = limiter.charge([want(limits=limits, tokens=11)])
    assert isinstance(refusal, InvalidRequest)
    assert (refusal.param, refusal.retryable, shared.calls) == ("max_tokens", False, 0)
    assert "counts as 11 tokens" in str(refusal)
    assert "has room for 10" in str(refusal)


def test_what_was_promised_counts_and_is_not_refused(limiter):
    limits = RateLimits(tokens_per_minute=60, burst_seconds=10)
    assert admitted(limiter, *[want(limits=limits, tokens=50, is_owed=True)] * 3) == [True] * 3
    assert admitted(limiter, want(limits=limits)) == [False]


def test_what_became_no_job_is_put_back(limiter):
    with limiter.charged([want(), want()]) as charges:
        charges.keep(0)
    assert admitted(limiter, want(), want()) == [True, False]


def test_where_nothing_was_written_all_is_put_back(limiter):
    with pytest.raises(StoreUnavailable), limiter.charged([want(), want()]):
        raise StoreUnavailable("away")
    assert admitted(limiter, want(), want()) == [True, True]


def test_where_it_is_unknown_whether_they_are_jobs_nothing_is_put_back(limiter):
    with pytest.raises(CommitUnknown), limiter.charged([want(), want()]):
        raise CommitUnknown("away")
    assert admitted(limiter) == [False]


@pytest.mark.parametrize("error", [redis.ConnectionError("gone"), redis.ResponseError("NOPERM")])
def test_without_redis_the_process_goes_on_from_what_it_knew_and_asks_again_after_a_rest(
    limiter, shared, time, error
):
    assert admitted(limiter) == [True]
    shared.error = error
    assert admitted(limiter, want(), want()) == [True, False]
    assert admitted(limiter) == [False]
    time.seconds += 1
    assert admitted(limiter, want(), want()) == [True, False]
    # Only the first of these waited for Redis.
    assert shared.calls == 2
    time.seconds += REST_SECONDS
    admitted(limiter)
    admitted(limiter)
    assert shared.calls == 3
    shared.error, time.seconds = None, time.seconds + REST_SECONDS
    assert admitted(limiter, want(), want(), want()) == [True, True, False]
    assert admitted(limiter) == [False]
    assert shared.calls == 5


def test_nobody_waits_for_the_one_who_tries_whether_redis_is_back(limiter, shared, time):
    shared.error = redis.ConnectionError("away")
    assert admitted(limiter) == [True]
    time.seconds += REST_SECONDS
    is_asked, may_answer = threading.Event(), threading.Event()

    def hang(groups):
        is_asked.set()
        assert may_answer.wait(2 * PATIENCE_SECONDS)
        raise shared.error

    shared.charge = hang
    trying = threading.Thread(target=admitted, args=(limiter,))
    others = [threading.Thread(target=admitted, args=(limiter, want(name))) for name in ("two", "three")]
    trying.start()
    assert is_asked.wait(PATIENCE_SECONDS)
    try:
        for other in others:
            other.start()
        for other in others:
            join(other)
    finally:
        may_answer.set()
        join(trying)


def test_what_this_process_took_is_put_back_here(limiter, shared):
    shared.error = redis.ConnectionError("gone")
    with limiter.charged([want(), want(), want()]) as charges:
        assert isinstance(charges.answers[2], RateLimited)
        charges.keep(0)
    assert admitted(limiter, want(), want()) == [True, False]


def test_buckets_that_are_full_again_are_forgotten(limiter, shared, time, monkeypatch):
    monkeypatch.setattr(rate_limiter, "LOCAL_BUCKETS", 10)
    limiter._prune_above = 10
    for number in range(10):
        admitted(limiter, want(str(number)))
    time.seconds += 1
    admitted(limiter, want("last"))
    assert list(limiter._local) == ["last"]
