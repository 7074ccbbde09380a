"""Spans of time as people write them."""

from __future__ import annotations

import re

_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_NUMBER = r"[0-9]{1,12}(?:\.[0-9]{1,9})?"
_PLAIN = re.compile(rf"({_NUMBER})(ms)?")
_PARTS = re.compile("".join(rf"(?:({_NUMBER}){unit})?" for unit in _UNITS))

MAX_SECONDS = 10 * 366 * 86_400
"""About ten years."""


def parse_duration(text: str) -> float:
    """A span of time in seconds: ``90``, ``1.5h``, ``1h30m``, ``2d``, ``250ms``.

    Parts come in the order of days, hours, minutes, seconds, each at most once.

    Raises:
      ValueError: It is none, or is longer than ten years.
    """
    written = text.strip().lower()
    if plain := _PLAIN.fullmatch(written):
        seconds = float(plain.group(1)) / (1000 if plain.group(2) else 1)
    elif written and (parts := _PARTS.fullmatch(written)):
        seconds = sum(
            float(part) * unit for part, unit in zip(parts.groups(), _UNITS.values(), strict=True) if part
        )
    else:
        raise ValueError(
            f"{text[:100]!r} is not a duration: write it as 30s, 5m, 1h30m, 2d or a number of seconds"
        )
    if seconds > MAX_SECONDS:
        raise ValueError(f"{text[:100]!r} is longer than ten years")
    return seconds
