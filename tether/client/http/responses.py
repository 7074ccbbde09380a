"""What an answer of a gateway, or of whatever stands in its place, means."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from tether.client.error_documents import error_from_json
from tether.errors import GatewayUnavailable, TetherError, UnexpectedAnswer

MAX_WAIT_MS = 86_400_000
"""Of a wait that an answer may ask for: what is longer says nothing."""

_UNAVAILABLE = (502, 503, 504)

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class HttpResponse:
    """An answer over HTTP.

    Attributes:
      place: The gateway's address, fit for a message.
      content_type: What its body says it is; empty where nothing.
      retry_after: Seconds to wait before the next try; None where nothing is said.
    """

    place: str
    status: int
    content_type: str
    retry_after: float | None
    body: bytes


@dataclass(frozen=True)
class Failure:
    """A call that did not succeed.

    Attributes:
      error: What its caller is told.
      may_retry: Whether the same call can succeed soon.
      status: Of the answer; None where there was none.
    """

    error: TetherError
    may_retry: bool
    status: int | None = None

    @property
    def is_final(self) -> bool:
        """Whether a gateway has refused the call itself, for good."""
        return (
            self.status is not None
            and 400 <= self.status < 500
            and not self.may_retry
            and not self.error.retryable
            and not isinstance(self.error, UnexpectedAnswer)
        )


def judge(answer: HttpResponse) -> dict[str, Any] | Failure:
    """The document that an answer holds, or what its error means."""
    value = _object_in(answer.body)
    if value is not None and answer.status in (200, 202):
        return value
    if value is not None and answer.status >= 400:
        try:
            return failure_from_body(answer.status, value, answer.retry_after)
        except UnexpectedAnswer:
            pass
    what = f"{answer.place} responded {answer.status}"
    if answer.status in _UNAVAILABLE:
        error: TetherError = GatewayUnavailable(
            f"{what}: no gateway is available behind it. Check that it is running, and try again"
        )
        error.retry_after = answer.retry_after
        return Failure(error, True, answer.status)
    return Failure(unexpected(answer), answer.status == 429 and answer.retry_after is not None, answer.status)


def failure_from_body(status: int, value: Mapping[str, Any], retry_after: float | None = None) -> Failure:
    """What a body that tells of an error means.

    Raises:
      UnexpectedAnswer: It is no such body of Tether's.
    """
    told = value.get("error")
    if not isinstance(told, dict) or not isinstance(told.get("code"), str) or "retryable" not in told:
        # Others answer in a similar form.
        raise UnexpectedAnswer("the error response is not in Tether's format")
    wait = told.get("retry_after_ms")
    if isinstance(wait, bool) or not isinstance(wait, int | float) or not 0 <= wait <= MAX_WAIT_MS:
        wait = None
    error = error_from_json({"error": {**told, "retry_after_ms": wait}})
    if error.retry_after is None:
        error.retry_after = retry_after
    may_retry = status in _UNAVAILABLE or (status == 429 and error.retry_after is not None)
    return Failure(error, may_retry, status)


def unexpected(answer: HttpResponse) -> UnexpectedAnswer:
    """The error that says what answered."""
    advice = "check the URL (TETHER_URL), and any proxy between you and the gateway"
    if 300 <= answer.status < 400:
        advice = (
            "redirects are not followed, so as not to send the key elsewhere; set TETHER_URL to the target"
        )
    error = UnexpectedAnswer(
        f"{answer.place} responded {answer.status} with a body of type "
        f"{answer.content_type[:80]!r}, which is "
        f"not a response of a Tether gateway: {advice}"
    )
    error.retry_after = answer.retry_after
    return error


def read(reader: Callable[[Any], _Value], value: object, place: str) -> _Value:
    """What the reader makes of a document.

    Raises:
      UnexpectedAnswer: It is none that the reader knows.
    """
    try:
        return reader(value)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UnexpectedAnswer(
            f"{place} responded with an unexpected document ({type(error).__name__}): check "
            "that the client is "
            "not older than the gateway, and that a Tether gateway is running there"
        ) from None


def _object_in(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def retry_after_seconds(header: str | None, now_ms: int) -> float | None:
    """The wait that a ``Retry-After`` header asks for (RFC 9110, section 10.2.3); None where it says nothing.

    Args:
      now_ms: Milliseconds since the epoch, for headers that name a time.
    """
    if not header:
        return None
    if header.isascii() and header.isdigit() and len(header) < 10:
        return float(header)
    # Loaded when used: it is slow, and most say a number of seconds.
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(header)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        left = moment - datetime.fromtimestamp(now_ms / 1000, UTC)
    except (ValueError, TypeError, OverflowError):
        return None
    return max(left.total_seconds(), 0.0)
