"""Requests as programs write them, made into requests as they are checked and kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Unpack

from tether.errors import InvalidRequest
from tether.requests import fields
from tether.requests.checking import read_request
from tether.requests.fields import JobRequest, Sampling, SubmitOptions
from tether.requests.table import DELAYS, NO_TIME

_MAX_SECONDS = fields.MAX_DELAY_MS / 1000
_TIMES = ("delay", "eta", "time_limit", "expires_in", "retry_base")


def make_request(
    model: str, prompt: str = "", /, *, now_ms: int, **options: Unpack[SubmitOptions]
) -> JobRequest:
    """Return the request of ``submit``'s arguments.

    Args:
      now_ms: Milliseconds since the epoch, which delays and limits count from.

    Raises:
      InvalidRequest: Arguments are of wrong types, out of range, or contradict each other.
    """
    return read_options({"model": model, "prompt": prompt, **options}, now_ms=now_ms)


def read_options(arguments: Mapping[str, Any], *, now_ms: int) -> JobRequest:
    """Return the request of ``submit``'s arguments by name, whoever named them.

    Raises:
      InvalidRequest: As :func:`make_request`.
    """
    values = dict(arguments)
    delay, eta, time_limit, expires_in, retry_base = (values.pop(name, None) for name in _TIMES)
    if delay is not None and eta is not None:
        raise InvalidRequest("delay and eta are mutually exclusive: give only one")
    starts_at = moment_ms("eta", eta)
    delay_ms = 0 if delay is None else _milliseconds("delay", delay)
    limit_ms = 0 if time_limit is None else _milliseconds("time_limit", time_limit)
    expires_ms = 0 if expires_in is None else _milliseconds("expires_in", expires_in)
    for name, given, milliseconds in (
        ("time_limit", time_limit, limit_ms),
        ("expires_in", expires_in, expires_ms),
    ):
        if given is not None and not milliseconds:
            raise InvalidRequest(f"{name}={given!r} {NO_TIME}")
    if starts_at is not None or delay_ms:
        values["not_before"] = now_ms + delay_ms if starts_at is None else starts_at
    if time_limit is not None:
        values["deadline"] = now_ms + limit_ms
    if expires_in is not None:
        values["expires_at"] = now_ms + expires_ms
    if retry_base is not None:
        values["retry_base_ms"] = _milliseconds("retry_base", retry_base)
    if values.get("messages", ()) is None:
        del values["messages"]
    if "messages" in values and values.get("prompt") == "":
        # An empty prompt beside messages is none.
        del values["prompt"]
    request = read_request(values, also=_TIMES)
    return replace(request, delay_ms=delay_ms, time_limit_ms=limit_ms, expires_in_ms=expires_ms)


def check_request(request: object) -> JobRequest:
    """The same request, checked as if it had come from outside: a program may put anything into one.

    Raises:
      InvalidRequest: It is no request, or holds what is not possible. The message names all of it.
    """
    if not isinstance(request, JobRequest):
        raise InvalidRequest(f"a job request is of type {type(request).__name__}, not a JobRequest")
    if not isinstance(request.sampling, Sampling):
        raise InvalidRequest(f"sampling is of type {type(request.sampling).__name__}, not a Sampling")
    values = {name: each.value_in(request) for name, each in fields.TABLE.fields.items()}
    for name in ("prompt", "messages"):
        # Each has a default, which stands for the other.
        if values[name] in ("", ()):
            del values[name]
    delays = {name: values.pop(name) for name in DELAYS}
    for name, value in delays.items():
        if type(value) is not int or value < 0:
            raise InvalidRequest(f"{name}={value!r} is not an integer number of milliseconds")
    without_time = [
        f"{name} only records how {time} was computed"
        for name, time in DELAYS.items()
        if getattr(request, name) and not getattr(request, time)
    ]
    if without_time:
        raise InvalidRequest("; ".join(without_time))
    return replace(read_request(values), **delays, named=request.named)


def moment_ms(name: str, value: datetime | None) -> int | None:
    """Return a point in time as milliseconds since the epoch.

    Args:
      name: Of the argument, for messages.

    Raises:
      InvalidRequest: It is no point in time, or has no time zone.
    """
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
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_SECONDS:
        raise InvalidRequest(f"{name}={value!r} is not a time in seconds, from 0 to ten years")
    return int(value * 1000)
