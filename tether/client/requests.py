"""Requests as clients write them, made into requests as they are checked and kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from tether.errors import InvalidRequest
from tether.gateway.validation import FIELDS, read_filter, read_request
from tether.jobs import JobFilter, JobRequest, Message, Sampling, sampling_to_json


def make_request(
    model: str,
    prompt: str = "",
    *,
    now_ms: int,
    messages: Sequence[Message | Mapping[str, str]] | None = None,
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
      messages: In place of the prompt.

    Raises:
      InvalidRequest: Arguments are of wrong types, out of range, or contradict each other.
    """
    if delay is not None and eta is not None:
        raise InvalidRequest("delay and eta are both given: give one of them")
    starts_at = _moment("eta", eta)
    delay_ms = 0 if delay is None else _milliseconds("delay", delay)
    limit_ms = 0 if time_limit is None else _milliseconds("time_limit", time_limit)
    not_before = now_ms + delay_ms if delay_ms else 0
    if starts_at is not None:
        not_before = starts_at
    values = {
        "model": model,
        **_input(prompt, messages),
        "priority": priority,
        "labels": labels or {},
        "adapter": adapter,
        "correlation_id": correlation_id,
        "retry_token": retry_token,
        "not_before": not_before,
        "deadline": 0 if time_limit is None else now_ms + limit_ms,
        **(sampling or {}),
    }
    return replace(read_request(values), delay_ms=delay_ms, time_limit_ms=limit_ms)


def check_request(request: object) -> JobRequest:
    """The same request, checked as if it had come from outside: a program may put anything into one.

    Raises:
      InvalidRequest: It is no request, or holds what is not possible. The message names all of it.
    """
    if not isinstance(request, JobRequest):
        raise InvalidRequest(
            f"a job is asked for by a value of type {type(request).__name__}, not by a JobRequest"
        )
    if not isinstance(request.sampling, Sampling):
        raise InvalidRequest(f"sampling is of type {type(request.sampling).__name__}, not a Sampling")
    stop = request.sampling.stop
    if not isinstance(stop, str | list | tuple):
        raise InvalidRequest(f"stop is of type {type(stop).__name__}, not a tuple of texts")
    values = {name: getattr(request, name) for name in FIELDS if hasattr(request, name)}
    for name in ("prompt", "messages"):
        # Each has a default, which stands for the other.
        if values[name] in ("", ()):
            del values[name]
    values |= {
        **sampling_to_json(request.sampling),
        "stop": stop,
    }
    times = {name: getattr(request, name) for name in ("delay_ms", "time_limit_ms")}
    for name, value in times.items():
        if type(value) is not int or value < 0:
            raise InvalidRequest(f"{name}={value!r} is not a whole number of milliseconds")
    if (request.delay_ms and not request.not_before) or (request.time_limit_ms and not request.deadline):
        raise InvalidRequest("delay_ms and time_limit_ms only tell how not_before and deadline were made")
    return replace(read_request(values), **times)


def _input(prompt: object, messages: object) -> dict[str, object]:
    """What to go on from, as it is checked: an empty prompt beside messages is none."""
    if messages is None:
        return {"prompt": prompt}
    return {"messages": messages} if prompt == "" else {"prompt": prompt, "messages": messages}


def make_filter(
    state: str | Sequence[str] = (),
    model: str | None = None,
    labels: Mapping[str, str] | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
) -> JobFilter:
    """A filter from a client's arguments.

    Raises:
      InvalidRequest: Arguments are of wrong types or out of range.
    """
    states = (state,) if isinstance(state, str) else state
    values = {
        "state": list(states) if isinstance(states, Iterable) else states,
        "model": model,
        "labels": labels or {},
        "created_after": _moment("created_after", created_after),
        "created_before": _moment("created_before", created_before),
    }
    return read_filter(values)


def _moment(name: str, value: datetime | None) -> int | None:
    """Milliseconds since the epoch."""
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise InvalidRequest(f"{name} is of type {type(value).__name__}, not a datetime")
    if value.tzinfo is None:
        raise InvalidRequest(
            f"{name} has no time zone: give one, as in datetime.now(UTC) + timedelta(hours=1)"
        )
    return int(value.timestamp() * 1000)


def _milliseconds(name: str, value: object) -> int:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e10:
        raise InvalidRequest(f"{name}={value!r} is not a time in seconds, 0 or more")
    return int(value * 1000)
