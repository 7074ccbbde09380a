"""Answers: JSON, and errors each in the one form."""

from __future__ import annotations

import math
from collections.abc import Mapping

from starlette.responses import Response

from tether.client.documents import error_to_json, json_bytes
from tether.errors import TetherError


def json_answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A document."""
    return Response(json_bytes(value), status, headers, media_type="application/json")


def error_answer(
    error: TetherError, headers: Mapping[str, str] | None = None, *, status: int = 0
) -> Response:
    """An error, with its status, and when a retry can help.

    Args:
      status: In place of the error's own; 0 is that.
    """
    told = dict(headers or {})
    if error.retry_after is not None:
        told["retry-after"] = str(max(math.ceil(error.retry_after), 1))
    if error.http_status == 408:
        # The rest of the body may come yet, and would be taken for a head.
        told["connection"] = "close"
    if error.http_status == 401:
        told["www-authenticate"] = 'Bearer realm="tether"'
    return json_answer(error_to_json(error), status or error.http_status, told)


def openai_error_answer(error: TetherError, headers: Mapping[str, str] | None = None) -> Response:
    """An error as OpenAI's clients know it.

    They know what is not possible as 400, and send again by themselves what was answered with 409 or 500, but
    where ``x-should-retry`` says that this is of no use.
    """
    told = {**(headers or {}), "x-should-retry": "true" if error.retryable else "false"}
    return error_answer(error, told, status=400 if error.http_status == 422 else 0)
