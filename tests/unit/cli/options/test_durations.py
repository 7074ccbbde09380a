"""Spans and points in time as people write them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether_cli.options.durations import MAX_SECONDS, parse_duration, parse_moment

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


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


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1h", NOW - timedelta(hours=1)),
        ("0", NOW),
        ("2026-01-01T00:00:00Z", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T01:00:00+01:00", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01", datetime(2026, 1, 1).astimezone()),
        ("2026-01-01 10:30", datetime(2026, 1, 1, 10, 30).astimezone()),
    ],
)
def test_a_moment_is_read(text, moment):
    found = parse_moment(text, NOW)
    assert found == moment
    assert found.tzinfo is not None


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "10:30", "9999999999999999"])
def test_what_is_no_moment_is_refused(text):
    with pytest.raises(ValueError, match="is not a point in time"):
        parse_moment(text, NOW)
