"""The rule of rate limits, by a clock of the test's own."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.rate_limits import (
    MAX_BURST_SECONDS,
    MAX_PER_MINUTE,
    UNITS,
    RateLimits,
    RateVerdict,
    TakenUnits,
    after_rest,
    full_again_ms,
    give_back_to_buckets,
    owe_to_buckets,
    standings,
    take_from_buckets,
)

rates = st.one_of(st.just(0), st.integers(1, 100), st.integers(1, MAX_PER_MINUTE))
limits_of_any_kind = st.builds(RateLimits, rates, rates, st.integers(1, MAX_BURST_SECONDS))
steps = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "owe", "give"]),
        st.integers(0, 90_000),
        st.lists(st.integers(1, 300), min_size=1, max_size=4),
    ),
    max_size=25,
)


def test_a_full_bucket_gives_its_burst_at_once_and_then_one_when_one_has_flowed_back():
    limits = RateLimits(requests_per_minute=60, burst_seconds=3)
    judged = take_from_buckets(TakenUnits(), limits, [1] * 4, now_ms=10_000)
    assert [verdict.is_admitted for verdict in judged.verdicts] == [True, True, True, False]
    assert judged.verdicts[3].requests_wait_ms == 1_000
    assert not take_from_buckets(judged.taken, limits, [1], now_ms=10_999).verdicts[0].is_admitted
    assert take_from_buckets(judged.taken, limits, [1], now_ms=11_000).verdicts[0].is_admitted


def test_one_request_can_always_be_asked_for_however_short_the_burst():
    limits = RateLimits(requests_per_minute=1, burst_seconds=1)
    judged = take_from_buckets(TakenUnits(), limits, [1, 1], now_ms=0)
    assert judged.verdicts == (RateVerdict(), RateVerdict(60_000, 0))


def test_what_is_refused_keeps_no_smaller_one_out_and_takes_nothing():
    limits = RateLimits(tokens_per_minute=100)
    judged = take_from_buckets(TakenUnits(), limits, [60, 60, 40], now_ms=0)
    assert [verdict.is_admitted for verdict in judged.verdicts] == [True, False, True]
    assert judged.taken.tokens == 100 * UNITS


def test_each_of_a_batch_waits_for_those_before_it_too():
    limits = RateLimits(requests_per_minute=60, burst_seconds=1)
    judged = take_from_buckets(TakenUnits(), limits, [1] * 4, now_ms=0)
    assert [verdict.requests_wait_ms for verdict in judged.verdicts] == [0, 1_000, 2_000, 3_000]


def test_the_wait_is_for_the_measure_that_refuses():
    limits = RateLimits(requests_per_minute=600, tokens_per_minute=60, burst_seconds=60)
    verdict = take_from_buckets(TakenUnits(), limits, [60, 30], now_ms=0).verdicts[1]
    assert verdict == RateVerdict(0, 30_000)


def test_a_clock_that_is_set_back_locks_nobody_out():
    limits = RateLimits(requests_per_minute=60, burst_seconds=1)
    taken = take_from_buckets(TakenUnits(), limits, [1], now_ms=1_000_000_000).taken
    judged = take_from_buckets(taken, limits, [1], now_ms=5_000)
    assert judged.verdicts[0].requests_wait_ms == 1_000
    assert take_from_buckets(judged.taken, limits, [1], now_ms=6_000).verdicts[0].is_admitted


def test_limits_that_are_lowered_count_from_empty_buckets_at_most():
    taken = take_from_buckets(
        TakenUnits(), RateLimits(requests_per_minute=6_000), [1] * 6_000, now_ms=0
    ).taken
    assert (
        take_from_buckets(taken, RateLimits(requests_per_minute=60), [1], 1_000).verdicts[0].requests_wait_ms
        == 1_000
    )


def test_what_is_owed_empties_the_bucket_and_no_more():
    limits = RateLimits(requests_per_minute=60, burst_seconds=2)
    taken = owe_to_buckets(TakenUnits(), limits, [1] * 50, now_ms=0)
    assert full_again_ms(taken, limits) == 2_000


def test_what_has_flowed_back_is_not_given_back_once_more():
    limits = RateLimits(requests_per_minute=60, burst_seconds=1)
    taken = take_from_buckets(TakenUnits(), limits, [1], now_ms=0).taken
    taken = take_from_buckets(taken, limits, [1], now_ms=1_000).taken
    assert give_back_to_buckets(taken, limits, [1], taken_at_ms=0, now_ms=1_000) == taken
    assert give_back_to_buckets(taken, limits, [1], taken_at_ms=1_000, now_ms=1_000).requests == 0


def test_nothing_is_given_back_by_a_clock_that_was_set_back():
    limits = RateLimits(requests_per_minute=60)
    taken = take_from_buckets(TakenUnits(), limits, [1], now_ms=9_000).taken
    assert give_back_to_buckets(taken, limits, [1], taken_at_ms=9_000, now_ms=8_000).requests == UNITS


def test_what_is_left_is_told_with_when_there_is_more():
    limits = RateLimits(requests_per_minute=60, tokens_per_minute=6_000, burst_seconds=10)
    requests, tokens = standings(take_from_buckets(TakenUnits(), limits, [250], now_ms=0).taken, limits)
    assert (requests.limit, requests.remaining, requests.next_ms, requests.full_ms) == (10, 9, 1_000, 1_000)
    assert (tokens.limit, tokens.remaining, tokens.next_ms, tokens.full_ms) == (1_000, 750, 10, 2_500)
    assert standings(TakenUnits(), RateLimits()) == ()
    assert standings(TakenUnits(), RateLimits(tokens_per_minute=1))[0].next_ms == 0


@given(limits=limits_of_any_kind, asked=steps)
def test_no_span_of_time_has_more_than_its_rate_and_one_burst(limits, asked):
    taken, now, admitted, taken_before = TakenUnits(), 0, [], []
    for kind, pause, costs in asked:
        now += pause
        if kind == "take":
            judged = take_from_buckets(taken, limits, costs, now)
            taken = judged.taken
            passed = [
                cost for cost, verdict in zip(costs, judged.verdicts, strict=True) if verdict.is_admitted
            ]
            if passed:
                taken_before.append((len(admitted), now, passed))
                admitted.append((now, len(passed), sum(passed)))
        elif kind == "owe":
            taken = owe_to_buckets(taken, limits, costs, now)
        elif taken_before:
            # It became no job: it does not count as admitted.
            number, at, passed = taken_before.pop()
            taken = give_back_to_buckets(taken, limits, passed, at, now)
            admitted[number] = (at, 0, 0)
        assert taken.requests <= limits.request_capacity
        assert taken.tokens <= limits.token_capacity
    for first in range(len(admitted)):
        begin = admitted[first][0]
        requests = accumulate(count for _, count, _ in admitted[first:])
        tokens = accumulate(cost for *_, cost in admitted[first:])
        for (end, *_), count, cost in zip(admitted[first:], requests, tokens, strict=True):
            if limits.requests_per_minute:
                most = limits.request_capacity + limits.requests_per_minute * (end - begin)
                assert count * UNITS <= most
            if limits.tokens_per_minute:
                assert cost * UNITS <= limits.token_capacity + limits.tokens_per_minute * (end - begin)


@given(limits=limits_of_any_kind.filter(bool), costs=st.lists(st.integers(1, 50), min_size=1, max_size=6))
def test_whoever_waits_as_told_is_admitted_and_nobody_sooner(limits, costs):
    costs = [min(cost, limits.max_tokens or cost) for cost in costs]
    judged = take_from_buckets(TakenUnits(), limits, costs, 0)
    refused = [each for each in zip(costs, judged.verdicts, strict=True) if not each[1].is_admitted]
    if not refused:
        return
    cost, verdict = refused[0]
    wait = max(verdict)
    assert take_from_buckets(judged.taken, limits, [cost], wait).verdicts[0].is_admitted
    assert not take_from_buckets(judged.taken, limits, [cost], wait - 1).verdicts[0].is_admitted


@given(limits=limits_of_any_kind, costs=st.lists(st.integers(1, 100), max_size=5))
def test_after_its_time_a_bucket_is_full(limits, costs):
    taken = owe_to_buckets(TakenUnits(), limits, costs, 0)
    life = full_again_ms(taken, limits)
    assert after_rest(taken, limits, life) == TakenUnits(0, 0, life)
    if life:
        assert after_rest(taken, limits, life - 1)[:2] != (0, 0)


@pytest.mark.parametrize("limits", [RateLimits(), RateLimits(0, 0, 5)])
def test_without_a_rate_nothing_is_limited(limits):
    assert not limits
    assert limits.max_tokens is None
    assert all(
        verdict.is_admitted for verdict in take_from_buckets(TakenUnits(), limits, [10**9] * 100, 0).verdicts
    )
