"""Points in time as people write them."""

from datetime import UTC, datetime, timedelta

import pytest

from tether_cli.options.moments import parse_moment

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


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
