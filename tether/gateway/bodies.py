"""Reads requests for jobs in the JSON that clients send: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tether.errors import InvalidRequest, TetherError
from tether.jobs import JobRequest
from tether.requests import fields
from tether.requests.checking import Problem, read_request, refusal_of
from tether.requests.fields import MAX_TIME_MS
from tether.requests.rules import Whole
from tether.requests.table import DELAYS, LIMITS, NO_TIME

MAX_JOBS = 1_000
"""Jobs in one batch."""

_HEADERS = {"retry_token": "idempotency-key", "correlation_id": "x-correlation-id"}


def read_job_request(
    values: Mapping[str, Any],
    now_ms: int,
    headers: Mapping[str, str] | None = None,
    *,
    names: Mapping[str, str] | None = None,
    ignored: list[str] | None = None,
) -> JobRequest:
    """Return the job request in a body.

    Args:
      now_ms: Milliseconds since the epoch, which delays count from.
      headers: Headers of the HTTP request, which may have its keys and trace.
      names: What the client calls a field, where that is not its own name.
      ignored: Receives the names of unknown fields, which are ignored; None where they are refused.

    Raises:
      InvalidRequest: It is invalid. The message lists every problem, ``param`` is the first field.
    """
    body = _plain(values)
    if ignored is not None:
        unknown = [name for name in body if name not in fields.TABLE.fields]
        ignored += unknown
        for name in unknown:
            del body[name]
    problems: list[Problem] = [*_take_headers(body, headers or {})]
    times = _take_times(body, now_ms, problems)
    try:
        request = read_request(body, also=tuple(DELAYS), names=names)
    except InvalidRequest as error:
        problems.append((error.param or "", str(error)))
    if problems:
        raise refusal_of(problems, "; ".join(text for _, text in problems))
    return replace(request, **times)


def read_batch(
    values: Mapping[str, Any], now_ms: int, *, ignored: list[str] | None = None
) -> list[JobRequest | TetherError]:
    """The requests for jobs that a batch holds, in order; in place of each that is not possible, why.

    Args:
      now_ms, ignored: See :func:`read_job_request`.

    Raises:
      InvalidRequest: It is no batch.
    """
    items = values.get("jobs")
    if not isinstance(items, list) or not 1 <= len(items) <= MAX_JOBS or len(values) > 1:
        raise InvalidRequest(
            f'a batch must be an object with the single field "jobs", a list of 1 to {MAX_JOBS} job requests'
        )
    return [_read_item(item, now_ms, ignored) for item in items]


def _read_item(item: object, now_ms: int, ignored: list[str] | None) -> JobRequest | TetherError:
    try:
        if not isinstance(item, dict):
            raise InvalidRequest(f"a job request is of type {type(item).__name__}, not an object")
        return read_job_request(item, now_ms, ignored=ignored)
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


def _take_headers(body: dict[str, Any], headers: Mapping[str, str]) -> Iterator[Problem]:
    """Add what stands in headers. Yields what contradicts the body."""
    for name, header in _HEADERS.items():
        if header in headers:
            value = _text_of(headers[header])
            if body.setdefault(name, value) != value:
                yield name, f"{name} in the body differs from the header {header}"
    if "traceparent" in headers:
        body.setdefault("traceparent", headers["traceparent"][:200])


def _take_times(body: dict[str, Any], now_ms: int, problems: list[Problem]) -> dict[str, Any]:
    """Replace delays by the resulting times, and return the delays."""
    times: dict[str, Any] = {}
    for name, end in DELAYS.items():
        if name not in body:
            continue
        value = body.pop(name)
        if wrong := list(fields.TABLE.fields[name].rule.problems(name, value)):
            problems += [(name, text) for text in wrong]
        elif body.get(end):
            problems.append((name, f"{name} and {end} are mutually exclusive: give only one"))
        elif not value and name in LIMITS:
            problems.append((name, f"{name}=0 {NO_TIME}"))
        elif value:
            times[name] = value
            body[end] = min(now_ms + value, MAX_TIME_MS)
    return times


def _text_of(value: str) -> str:
    """A header's text: servers hand on its bytes as Latin-1, and clients send UTF-8."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value
