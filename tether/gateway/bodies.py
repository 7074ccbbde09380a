"""Reads what clients send: bodies within their limit, JSON, and requests for jobs in it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from starlette.requests import ClientDisconnect, Request

from tether.config_types import DAY_MS
from tether.errors import InvalidRequest, MalformedBody, RequestTimeout, RequestTooLarge
from tether.gateway.validation import LATEST_TIME_MS, read_request
from tether.jobs import JobRequest

MOST_JOBS = 1_000
"""Jobs in one batch."""

BODY_SECONDS = 60.0
"""How long a body may take to come."""

LONGEST_DELAY_MS = 3_650 * DAY_MS
_DELAYS = ("delay_ms", "time_limit_ms")
_WHOLE = ("max_tokens", "top_k", "seed", "not_before", "deadline", *_DELAYS)
_HEADERS = {"retry_token": "idempotency-key", "correlation_id": "x-correlation-id"}


async def read_json(request: Request, limit: int) -> dict[str, Any]:
    """The object that a request's body holds.

    Args:
      limit: Most bytes.

    Raises:
      RequestTooLarge: It has more.
      RequestTimeout: It takes too long to come.
      MalformedBody: It is no JSON object in UTF-8.
    """
    told = request.headers.get("content-length", "")
    if told.isdigit() and len(told) < 20 and int(told) > limit:
        raise _too_large(limit)
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() not in ("", "identity"):
        raise MalformedBody(f"the body is encoded as {encoding[:40]!r}: send it as it is")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError:
        raise RequestTimeout(f"the body did not come within {BODY_SECONDS:g} s: send it faster") from None
    except ClientDisconnect:
        raise MalformedBody("the connection ended before the body did") from None
    return parse_json(bytes(body))


def parse_json(body: bytes) -> dict[str, Any]:
    """The object that the bytes hold.

    Raises:
      MalformedBody: They are no JSON object in UTF-8.
    """
    if not body.strip():
        raise MalformedBody('the body is empty: send a JSON object, as in {"model": "...", "prompt": "..."}')
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise MalformedBody(f"the body is not UTF-8: byte {error.start} cannot be read") from None
    try:
        value = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_each_once)
    except json.JSONDecodeError as error:
        raise MalformedBody(
            f"the body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from None
    except MalformedBody:
        raise
    except (ValueError, RecursionError):
        raise MalformedBody(
            "the body is not JSON that can be read: it is nested too deep, or has too long a number"
        ) from None
    if not isinstance(value, dict):
        raise MalformedBody(f"the body is JSON of type {type(value).__name__}, not an object in braces")
    return value


def _no_constant(name: str) -> Any:
    raise MalformedBody(f"the body is not valid JSON: {name} is no number there")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise MalformedBody(f"the body has the field {twice[:80]!r} twice: give it once")
    return found


def _too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(
        f"the body has more than {limit} bytes: make it smaller, or raise gateway.body_limit"
    )


def read_job(values: Mapping[str, Any], now_ms: int, headers: Mapping[str, str] | None = None) -> JobRequest:
    """The request for a job that an object tells of.

    Args:
      now_ms: Milliseconds since the epoch, which delays count from.
      headers: Of the HTTP request, where its keys and trace may stand too.

    Raises:
      InvalidRequest: It holds what is not possible. The message names all of it.
    """
    told = _plain(values)
    problems = [*_take_headers(told, headers or {})]
    times = _take_times(told, now_ms, problems)
    try:
        request = read_request(told, also=_DELAYS)
    except InvalidRequest as error:
        problems.append(str(error))
    if problems:
        raise InvalidRequest("; ".join(problems))
    return replace(request, delay_ms=times.get("delay_ms", 0), time_limit_ms=times.get("time_limit_ms", 0))


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """As many clients send them: null is not given, and 8.0 is the whole number 8."""
    return {
        name: int(value) if name in _WHOLE and isinstance(value, float) and value.is_integer() else value
        for name, value in values.items()
        if value is not None
    }


def _take_headers(told: dict[str, Any], headers: Mapping[str, str]) -> Iterator[str]:
    """Add what stands in headers. Yields what contradicts the body."""
    for name, header in _HEADERS.items():
        if header in headers:
            value = _text_of(headers[header])
            if told.setdefault(name, value) != value:
                yield f"{name} stands in the body and, differently, in the header {header}"
    if "traceparent" in headers:
        told.setdefault("traceparent", headers["traceparent"][:200])


def _take_times(told: dict[str, Any], now_ms: int, problems: list[str]) -> dict[str, int]:
    """Replace delays by the times that they come to. Answers the delays."""
    times: dict[str, int] = {}
    for name, end in zip(_DELAYS, ("not_before", "deadline"), strict=True):
        if name not in told:
            continue
        value = told.pop(name)
        if type(value) is not int or not 0 <= value <= LONGEST_DELAY_MS:
            problems.append(f"{name}={value!r:.80} is not a whole number of milliseconds, at most ten years")
        elif told.get(end):
            problems.append(f"{name} and {end} are both given: give one of them")
        elif value or name == "time_limit_ms":
            times[name] = value
            told[end] = min(now_ms + value, LATEST_TIME_MS)
    return times


def _text_of(value: str) -> str:
    """A header's text: servers hand on its bytes as Latin-1, and clients send UTF-8."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value
