"""What one tenant may have of a worker: pure arithmetic, by a clock that tests move."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.config.sections import WorkerSettings
from tether_workers.tenant_shares import (
    BURST_SECONDS,
    MAX_DEBT_SECONDS,
    MAX_TENANTS,
    TenantShare,
    TenantShares,
    paid_off_at,
    seconds_kept_back,
)


class Clock:
    now = 1_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def shares(clock):
    return TenantShares(TenantShare(slots=2, tokens_per_second=10.0), clock)


@pytest.mark.parametrize(
    ("share", "slots", "most"),
    [(1.0, 8, None), (0.5, 8, 4), (0.5, 7, 3), (0.01, 8, 1), (0.29, 100, 29), (0.99, 1, None), (0.7, 10, 7)],
)
def test_a_share_of_the_slots_is_rounded_down_to_one_at_least(share, slots, most):
    assert TenantShare.of(WorkerSettings(tenant_share=share), slots).slots == most


def test_without_a_setting_nothing_is_limited(clock):
    share = TenantShare.of(WorkerSettings(), 8)
    assert not share.is_limited
    shares = TenantShares(share, clock)
    shares.note("a", 10**9)
    assert shares.limits({"a": 8}).to_argument() is None
    assert shares.kept_back("a", clock.now) == 0


def test_a_tenant_may_have_what_its_running_jobs_leave(shares):
    limits = shares.limits({"a": 1, "b": 2, "c": 3})
    assert (limits.others, limits.left) == (2, {"a": 1, "b": 0, "c": 0})
    assert limits.again_in_seconds is None


def test_who_makes_more_tokens_than_its_rate_is_kept_back_until_it_has_paid(shares, clock):
    shares.note("a", 100)
    assert shares.limits({}).left == {}, "a burst of ten seconds is free"
    shares.note("a", 20)
    limits = shares.limits({"a": 1})
    assert limits.left == {"a": 0}
    assert limits.again_in_seconds == pytest.approx(2.0)
    clock.now += 1.5
    assert shares.limits({}).again_in_seconds == pytest.approx(0.5)
    clock.now += limits.again_in_seconds
    assert shares.limits({}).left == {}
    assert shares.kept_back("a", clock.now) == 0


def test_whoever_draws_is_told_once_that_a_tenant_has_too_much(shares, clock):
    told = []
    shares.on_tightened(lambda: told.append("former"))
    shares.on_tightened(lambda: told.append(clock.now))
    shares.note("a", 90)
    assert told == []
    for _ in range(3):
        shares.note("a", 20)
    assert len(told) == 1
    clock.now += 60
    assert shares.limits({}).left == {}
    shares.note("a", 101)
    assert len(told) == 2


def test_the_first_that_may_begin_again_says_when_to_draw(shares):
    shares.note("a", 150)
    shares.note("b", 110)
    assert shares.limits({}).again_in_seconds == pytest.approx(1.0)
    assert shares.limits({}).passed_over == {"a", "b"}


def test_no_tenant_is_kept_back_for_longer_than_a_minute(shares, clock):
    shares.note("a", 10**9)
    assert shares.kept_back("a", clock.now) == pytest.approx(MAX_DEBT_SECONDS)
    clock.now += MAX_DEBT_SECONDS + 0.001
    assert shares.kept_back("a", clock.now) == 0


def test_jobs_that_were_drawn_before_their_tenant_had_its_share_begin(shares, clock):
    shares.note("a", 90)
    drawn_at = clock.now
    clock.now += 0.5
    shares.note("a", 50)
    clock.now += 0.5
    assert shares.kept_back("a", drawn_at) == 0
    assert shares.kept_back("a", clock.now) == pytest.approx(3.0)
    clock.now += 4
    assert shares.limits({}).left == {}
    drawn_at = clock.now
    clock.now += 1
    shares.note("a", 100)
    assert shares.kept_back("a", drawn_at) == 0, "it had paid in between"


def test_of_more_tenants_than_are_counted_those_that_made_least_go_free(shares):
    shares.note("greedy", 500)
    for number in range(3 * MAX_TENANTS):
        shares.note(f"t{number}", 101)
    left = shares.limits({}).left
    assert len(left) <= MAX_TENANTS
    assert left["greedy"] == 0


def test_who_has_paid_is_forgotten_first(shares, clock):
    shares.note("early", 300)
    clock.now += 20
    for number in range(MAX_TENANTS - 1):
        shares.note(f"t{number}", 1)
    clock.now += 5
    for number in range(10):
        shares.note(f"late-{number}", 1)
    assert shares.kept_back("early", clock.now) == 0
    assert len(shares._paid_at) < 20


@given(
    steps=st.lists(st.tuples(st.floats(0, 5), st.integers(1, 400)), min_size=1, max_size=60),
    rate=st.floats(0.1, 1_000),
)
def test_over_any_time_a_tenant_that_begins_only_when_it_may_keeps_its_rate(steps, rate):
    """But for a burst, and for what the last job makes: a job is made at once here."""
    now, paid, made, greatest = 0.0, 0.0, 0.0, 0
    for pause, tokens in steps:
        now += pause
        # No job makes so much that its debt is cut.
        tokens = min(tokens, MAX_DEBT_SECONDS * rate)
        if seconds_kept_back(paid, now):
            continue
        paid = paid_off_at(paid, tokens, rate, now)
        made, greatest = made + tokens, max(greatest, tokens)
        assert made <= rate * (now + BURST_SECONDS) + greatest + 1e-6


@given(st.floats(0, 1e6), st.integers(0, 10**9), st.floats(0.1, 1e6), st.floats(0, 1e6))
def test_the_moment_that_is_told_is_that_from_which_it_may(former, tokens, rate, now):
    paid = paid_off_at(former, tokens, rate, now)
    wait = seconds_kept_back(paid, now)
    assert 0 <= wait <= MAX_DEBT_SECONDS + 1e-6
    assert seconds_kept_back(paid, now + wait) <= 1e-6
    if wait > 1e-3:
        assert seconds_kept_back(paid, now + wait - 1e-3) > 0


def test_who_is_passed_over_is_who_is_kept_back(shares, clock):
    source = random.Random(1)
    for _ in range(500):
        clock.now += source.random()
        shares.note(f"t{source.randrange(5)}", source.randrange(60))
        limits = shares.limits({})
        kept = {f"t{number}" for number in range(5) if shares.kept_back(f"t{number}", clock.now)}
        assert limits.passed_over == kept
        assert (limits.again_in_seconds is None) is not bool(kept)
