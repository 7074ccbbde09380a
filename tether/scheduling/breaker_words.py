"""Breakers in words, for people and for clients: pure."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from tether.scheduling.breaker import Breaker, BreakerName, BreakerState, TripCause


def why_shut(name: BreakerName, breaker: Breaker, now: int) -> str:
    """Why a breaker that is not closed lets a job not pass."""
    return f"{_subject(name)} {_state(breaker, now)}: {why_opened(breaker)}; {_next(breaker, now)}"


def why_opened(breaker: Breaker) -> str:
    """Why a breaker opened; empty where it is closed."""
    share = f"{breaker.share:.0%} of {breaker.count} attempts"
    match breaker.cause:
        case TripCause.FAILURES:
            return f"{share} had failed"
        case TripCause.SLOWNESS:
            return f"{share} were slow against {breaker.baseline:.3g} ms for a token"
        case None:
            return ""


def seconds_to_probe(breaker: Breaker, now: int) -> int:
    """After how many seconds a job may try at the earliest; at least 1."""
    return max(1, math.ceil((breaker.until - now) / 1000))


def _subject(name: BreakerName) -> str:
    return f"the circuit breaker of {name.model}@{name.version} in region {name.region} is"


def _state(breaker: Breaker, now: int) -> str:
    since = _shown(breaker.opened_at)
    if breaker.state(now) is BreakerState.HALF_OPEN:
        return f"half-open, and was opened at {since}"
    return f"open since {since}"


def _next(breaker: Breaker, now: int) -> str:
    if breaker.state(now) is BreakerState.HALF_OPEN:
        return "one job at a time tries whether it works again"
    return f"the next job tries at {_shown(breaker.until)}"


def _shown(time_ms: int) -> str:
    try:
        return datetime.fromtimestamp(time_ms // 1000, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return "an unknown time"
