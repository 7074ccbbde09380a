"""Headers that tell a client how it stands with its tenant's rate limits: pure."""

from __future__ import annotations

from collections.abc import Sequence

from tether.rate_limits import RateMeasure, RateStanding

OPENAI_RATE_HEADERS = tuple(
    f"x-ratelimit-{what}-{measure}" for measure in RateMeasure for what in ("limit", "remaining", "reset")
)
RATE_HEADERS = ("ratelimit", "ratelimit-policy")


def rate_headers(standings: Sequence[RateStanding]) -> dict[str, str]:
    """Return ``RateLimit-Policy`` and ``RateLimit`` (draft-ietf-httpapi-ratelimit-headers-11); nothing where
    nothing is limited.

    ``q`` and ``r`` are what a full bucket holds and what is left, ``w`` the seconds in which an empty one
    fills, ``t`` those until there is one more. The unit ``tokens`` is not registered yet.
    """
    if not standings:
        return {}
    policies, limits = [], []
    for one in standings:
        window = -(-one.limit * 60 // one.per_minute)
        unit = "" if one.measure is RateMeasure.REQUESTS else f';qu="{one.measure}"'
        policies.append(f'"{one.measure}";q={one.limit};w={window}{unit}')
        limits.append(f'"{one.measure}";r={one.remaining};t={-(-one.next_ms // 1000)}')
    return {"ratelimit-policy": ", ".join(policies), "ratelimit": ", ".join(limits)}


def openai_rate_headers(standings: Sequence[RateStanding]) -> dict[str, str]:
    """Return the same, and the headers that OpenAI's clients know; ``reset`` is when a bucket is full."""
    headers = rate_headers(standings)
    for one in standings:
        headers[f"x-ratelimit-limit-{one.measure}"] = str(one.limit)
        headers[f"x-ratelimit-remaining-{one.measure}"] = str(one.remaining)
        headers[f"x-ratelimit-reset-{one.measure}"] = duration_text(one.full_ms)
    return headers


def duration_text(milliseconds: int) -> str:
    """A duration in the form that OpenAI and Go use: ``0s``, ``12ms``, ``1.5s``, ``6m0s``, ``1h0m0s``."""
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    seconds, thousandths = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{seconds}.{thousandths:03}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
