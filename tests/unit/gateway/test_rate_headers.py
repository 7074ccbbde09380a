"""The headers of rate limits."""

import pytest

from tether.gateway.rate_headers import duration_text, openai_rate_headers, rate_headers
from tether.rate_limits import RateLimits, TakenUnits, standings, take_from_buckets


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0s"),
        (1, "1ms"),
        (999, "999ms"),
        (1_000, "1s"),
        (8_640, "8.64s"),
        (60_000, "1m0s"),
        (61_500, "1m1.5s"),
        (3_600_000, "1h0m0s"),
    ],
)
def test_durations_are_written_as_go_does(milliseconds, text):
    assert duration_text(milliseconds) == text


def test_each_limit_is_told_with_what_is_left():
    limits = RateLimits(requests_per_minute=6, tokens_per_minute=600, burst_seconds=30)
    left = standings(take_from_buckets(TakenUnits(), limits, [250], 0).taken, limits)
    standard = {
        "ratelimit-policy": '"requests";q=3;w=30, "tokens";q=300;w=30;qu="tokens"',
        "ratelimit": '"requests";r=2;t=10, "tokens";r=50;t=1',
    }
    assert rate_headers(left) == standard
    assert openai_rate_headers(left) == {
        **standard,
        "x-ratelimit-limit-requests": "3",
        "x-ratelimit-remaining-requests": "2",
        "x-ratelimit-reset-requests": "10s",
        "x-ratelimit-limit-tokens": "300",
        "x-ratelimit-remaining-tokens": "50",
        "x-ratelimit-reset-tokens": "25s",
    }


def test_a_bucket_of_a_single_request_fills_in_its_own_time():
    left = standings(TakenUnits(), RateLimits(requests_per_minute=1, burst_seconds=1))
    assert rate_headers(left) == {
        "ratelimit-policy": '"requests";q=1;w=60',
        "ratelimit": '"requests";r=1;t=0',
    }


def test_where_nothing_is_limited_nothing_is_told():
    assert rate_headers(()) == openai_rate_headers(()) == {}
