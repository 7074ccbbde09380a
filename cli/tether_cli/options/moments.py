"""Points in time as people write them."""

from __future__ import annotations

from datetime import datetime, timedelta

from tether.durations import parse_duration


def parse_moment(text: str, now: datetime) -> datetime:
    """A point in time: so long ago, as in ``1h``; or in ISO 8601, as in ``2026-01-31T12:00:00Z``.

    A time without a zone is one of the machine's own; a date alone is its first moment.

    Args:
      now: What spans count back from; with its time zone.

    Raises:
      ValueError: It is none.
    """
    try:
        return now - timedelta(seconds=parse_duration(text))
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text.strip())
        return found.astimezone() if found.tzinfo is None else found
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text[:100]!r} is not a point in time: write it as 2026-01-31T12:00:00Z, or as a "
            "duration before now (1h)"
        ) from None
