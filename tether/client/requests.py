"""Requests as clients write them, made into requests as they are checked and kept."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from tether.errors import InvalidRequest
from tether.gateway.validation import read_request
from tether.jobs import JobRequest


def make_request(
    model: str,
    prompt: str,
    *,
    now_ms: int,
    priority: str = "standard",
    delay: float | timedelta | None = None,
    eta: datetime | None = None,
    time_limit: float | timedelta | None = None,
    labels: Mapping[str, str] | None = None,
    adapter: str = "",
    correlation_id: str = "",
    retry_token: str = "",
    sampling: Mapping[str, Any] | None = None,
) -> JobRequest:
    """A request from a client's arguments.

    Args:
      now_ms: Milliseconds since the epoch, which delays and limits count from.

    Raises:
      InvalidRequest: Arguments are of wrong types, out of range, or contradict each other.
    """
    if delay is not None and eta is not None:
        raise InvalidRequest("delay and eta are both given: give one of them")
    if eta is not None and eta.tzinfo is None:
        raise InvalidRequest("eta has no time zone: give one, as in datetime.now(UTC) + timedelta(hours=1)")
    not_before = 0
    if delay is not None:
        not_before = now_ms + _milliseconds("delay", delay)
    elif eta is not None:
        not_before = int(eta.timestamp() * 1000)
    values = {
        "model": model,
        "prompt": prompt,
        "priority": priority,
        "labels": dict(labels or {}),
        "adapter": adapter,
        "correlation_id": correlation_id,
        "retry_token": retry_token,
        "not_before": not_before,
        "deadline": 0 if time_limit is None else now_ms + _milliseconds("time_limit", time_limit),
        **(sampling or {}),
    }
    return read_request(values)


def _milliseconds(name: str, value: object) -> int:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e10:
        raise InvalidRequest(f"{name}={value!r} is not a time in seconds, 0 or more")
    return int(value * 1000)
