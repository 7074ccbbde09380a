"""Reads requests for jobs in the JSON that clients send: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tether.errors import InvalidRequest, TetherError
from tether.jobs import JobRequest
from tether.requests import fields
from tether.requests.checking import read_request
from tether.requests.fields import MAX_TIME_MS
from tether.requests.rules import Whole
from tether.requests.table import DELAYS

MAX_JOBS = 1_000
"""Jobs in one batch."""

_HEADERS = {"retry_token": "idempotency-key", "correlation_id": "x-correlation-id"}


def read_job_request(
    values: Mapping[str, Any], now_ms: int, headers: Mapping[str, str] | None = None
) -> JobRequest:
    """Return the job request in a body.

    Args:
      now_ms: Milliseconds since the epoch, which delays count from.
      headers: Headers of the HTTP request, which may have its keys and trace.

    Raises:
      InvalidRequest: It is invalid. The message lists every problem.
    """
    body = _plain(values)
    problems = [*_take_headers(body, headers or {})]
    times = _take_times(body, now_ms, problems)
    try:
        request = read_request(body, also=tuple(DELAYS))
    except InvalidRequest as error:
        problems.append(str(error))
    if problems:
        raise InvalidRequest("; ".join(problems))
    return replace(request, delay_ms=times.get("delay_ms", 0), time_limit_ms=times.get("time_limit_ms", 0))


def read_batch(values: Mapping[str, Any], now_ms: int) -> list[JobRequest | TetherError]:
    """The requests for jobs that a batch holds, in order; in place of each that is not possible, why.

    Args:
      now_ms: See :func:`read_job_request`.

    Raises:
      InvalidRequest: It is no batch.
    """
    items = values.get("jobs")
    if not isinstance(items, list) or not 1 <= len(items) <= MAX_JOBS or len(values) > 1:
        raise InvalidRequest(
            f'a batch must be an object with the single field "jobs", a list of 1 to {MAX_JOBS} job requests'
        )
    return [_read_item(item, now_ms) for item in items]


def _read_item(item: object, now_ms: int) -> JobRequest | TetherError:
    try:
        if not isinstance(item, dict):
            raise InvalidRequest(f"a job request is of type {type(item).__name__}, not an object")
        return read_job_request(item, now_ms)
    except TetherError as error:
        # Its frames would keep the item.
        return error.with_traceback(None)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """As many clients send them: null is not given, and 8.0 is the whole number 8."""
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() and _is_whole(name) else value
        for name, value in values.items()
        if value is not None
    }


def _is_whole(name: str) -> bool:
    each = fields.TABLE.fields.get(name)
    return each is not None and isinstance(each.rule, Whole)


def _take_headers(body: dict[str, Any], headers: Mapping[str, str]) -> Iterator[str]:
    """Add what stands in headers. Yields what contradicts the body."""
    for name, header in _HEADERS.items():
        if header in headers:
            value = _text_of(headers[header])
            if body.setdefault(name, value) != value:
                yield f"{name} in the body differs from the header {header}"
    if "traceparent" in headers:
        body.setdefault("traceparent", headers["traceparent"][:200])


def _take_times(body: dict[str, Any], now_ms: int, problems: list[str]) -> dict[str, int]:
    """Replace delays by the resulting times, and return the delays."""
    times: dict[str, int] = {}
    for name, end in DELAYS.items():
        if name not in body:
            continue
        value = body.pop(name)
        if wrong := list(fields.TABLE.fields[name].rule.problems(name, value)):
            problems += wrong
        elif body.get(end):
            problems.append(f"{name} and {end} are mutually exclusive: give only one")
        elif value or name == "time_limit_ms":
            times[name] = value
            body[end] = min(now_ms + value, MAX_TIME_MS)
    return times


def _text_of(value: str) -> str:
    """A header's text: servers hand on its bytes as Latin-1, and clients send UTF-8."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value
