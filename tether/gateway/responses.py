"""Responses: JSON, and errors in their one format."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from tether.client.documents import json_bytes
from tether.client.error_documents import error_to_json
from tether.errors import RateLimited, TetherError
from tether.gateway.rate_headers import openai_rate_headers, rate_headers
from tether.telemetry.logs import get_logger

MAX_IGNORED_NAMES, MAX_IGNORED_NAME_CHARACTERS = 20, 80
"""Ignored fields that a header names, and how much of each name."""

MAX_IGNORED_CHARACTERS = 2_000
"""Of all these names, as they are written: proxies refuse an answer with a head of 4 KB."""


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
    all_headers = dict(headers or {})
    if isinstance(error, RateLimited):
        all_headers = {**rate_headers(error.standings), **all_headers}
    if error.retry_after is not None:
        all_headers["retry-after"] = str(max(math.ceil(error.retry_after), 1))
    if error.http_status == 408:
        # The rest of the body may come yet, and would be taken for a head.
        all_headers["connection"] = "close"
    if error.http_status == 401:
        all_headers["www-authenticate"] = 'Bearer realm="tether"'
    if error.outward is not None:
        get_logger("tether.gateway").warning("A request was refused.", code=error.code, error=str(error))
    return json_answer(error_document(error), status or error.http_status, all_headers)


def error_document(error: TetherError) -> dict[str, Any]:
    """An error as clients are told it."""
    document = error_to_json(error)
    if error.outward is not None:
        document["error"]["message"] = error.outward
    return document


def ignored_header(ignored: Sequence[str]) -> dict[str, str]:
    """The header that names what of a request was ignored; none where nothing was."""
    if not ignored:
        return {}
    names, told = list(dict.fromkeys(ignored)), list[str]()
    for name in names[:MAX_IGNORED_NAMES]:
        # Names in JSON may hold half of a pair of surrogates.
        text = quote(name[:MAX_IGNORED_NAME_CHARACTERS], safe="[].-_", errors="replace")
        if sum(map(len, told)) + len(text) > MAX_IGNORED_CHARACTERS:
            break
        told.append(text)
    more = [f"and {len(names) - len(told)} more"] if len(names) > len(told) else []
    return {"x-tether-ignored": ", ".join((*told, *more))}


def openai_error_answer(error: TetherError, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error response in OpenAI's format.

    OpenAI's clients expect 400 for invalid requests, and retry 409 and 500 automatically unless
    ``x-should-retry`` is false.
    """
    told = {**(headers or {}), "x-should-retry": "true" if error.retryable else "false"}
    if isinstance(error, RateLimited):
        told |= openai_rate_headers(error.standings)
    return error_answer(error, told, status=400 if error.http_status == 422 else 0)
