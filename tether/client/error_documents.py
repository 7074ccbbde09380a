"""The JSON of an error, in the shape of OpenAI's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tether.errors import (
    InvalidRequest,
    PolicyRefused,
    TetherError,
    UnexpectedAnswer,
    UnknownModel,
    error_of,
)


def error_to_json(error: TetherError) -> dict[str, Any]:
    """An error in the shape of OpenAI's, and whether and when a retry can help."""
    retry_after_ms = None if error.retry_after is None else round(error.retry_after * 1000)
    return {
        "error": {
            "code": error.code,
            "message": str(error),
            "type": error_type(error.http_status),
            "param": error.param
            if isinstance(error, InvalidRequest | UnknownModel | PolicyRefused)
            else None,
            "retryable": error.retryable,
            "retry_after_ms": retry_after_ms,
        }
    }


def error_type(http_status: int) -> str:
    """What OpenAI's clients know errors of this status as."""
    known = {
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        409: "conflict_error",
        429: "rate_limit_error",
    }
    return known.get(http_status, "server_error" if http_status >= 500 else "invalid_request_error")


def error_from_json(value: Mapping[str, Any]) -> TetherError:
    """The error that a body tells of.

    Raises:
      UnexpectedAnswer: It is no such body.
    """
    try:
        told = value["error"]
        code, message, wait = str(told["code"]), str(told["message"]), told.get("retry_after_ms")
    except (KeyError, TypeError, AttributeError):
        raise UnexpectedAnswer("the error response is not in Tether's format") from None
    return error_of(code, message, None if not isinstance(wait, int | float) else wait / 1000)
