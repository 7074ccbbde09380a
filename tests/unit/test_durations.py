"""Spans of time as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.durations import MAX_SECONDS, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        ("1.5", 1.5),
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("1.5H", 5400),
        ("2d1s", 172_801),
        (" 250ms ", 0.25),
    ],
)
def test_a_span_is_read(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", " ", "s", "-5", "1m1h", "5m5m", "1h 30m", "1e3", "nan", "inf", "٣", "5 x", "1.m", "9" * 400, "11y"],
)
def test_what_is_no_span_is_refused(text):
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_a_span_beyond_ten_years_is_refused():
    with pytest.raises(ValueError, match="longer than ten years"):
        parse_duration(f"{MAX_SECONDS + 1}")


@given(st.integers(0, 900), st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 10_000))
def test_parts_add_up(days, hours, minutes, seconds):
    assert parse_duration(f"{days}d{hours}h{minutes}m{seconds}s") == (
        days * 86_400 + hours * 3600 + minutes * 60 + seconds
    )


@given(st.text())
def test_any_text_is_a_span_or_refused(text):
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert 0 <= seconds <= MAX_SECONDS
