"""The clocks of this machine. What decides by time takes one as an argument, and is given one of these."""

from __future__ import annotations

import time


def wall_clock_ms() -> int:
    """Milliseconds since the epoch. It may be set back."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    """Milliseconds since some moment of the past. It is never set back."""
    return time.monotonic_ns() // 1_000_000
