"""What the OpenAPI document says of each route, beside what FastAPI knows by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from tether.gateway import schemas
from tether.requests import fields

DESCRIPTION = """A task queue for model inference: submit jobs, stream their tokens, lose none.

Every request under `/v1` needs an API key: `Authorization: Bearer tk_...`. A key belongs to a tenant, and
gives access to that tenant's jobs only. All errors have the same form; `code`
is stable, `message` says what to do."""

_ERRORS = {
    400: "The body is not JSON in UTF-8.",
    401: "The API key is missing, unknown or revoked.",
    403: "The API key lacks the scope.",
    404: "Not found.",
    405: "This route does not allow this method.",
    408: "The body did not arrive in time.",
    409: "The idempotency key was used for a different request, or a retry of this dead letter would fail.",
    410: "The retry token makes no job any more: the dead letter is gone, or what it needs is.",
    413: "The body is larger than the maximum of this route, or has more than 100,000 JSON values.",
    422: "The request is invalid; the message lists every problem.",
    429: "Too many requests, streams or bytes of bodies at once, or the quota of open jobs is exhausted.",
    431: "The headers of the request are too large.",
    500: "Internal error of the gateway.",
    503: "Nothing was accepted, or it is not known whether it was: send the same request again, "
    "with the same keys.",
    504: "The job did not finish by its deadline, or was not begun in time.",
}
_ERROR = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schemas.ErrorDocument.__name__}"}}}
"""The form of all errors, by reference: told of the class, FastAPI makes a validator for each error of each
route, 500 of them, which takes as long as all else that it makes of the routes."""

_EVERYWHERE = (401, 403, 429, 431, 500, 503)
_EVEN_IF_OPEN = (431,)


def operation(
    summary: str,
    description: str,
    replies: Mapping[int, Mapping[str, Any]],
    errors: Sequence[int],
    *,
    is_open: bool,
    body: Mapping[str, Any] | None,
    parameters: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What FastAPI is told of a route.

    Args:
      replies: By status, as FastAPI takes them; the least status is the usual one.
      errors: Statuses beside those that every route may answer with.
      is_open: Whether no key is needed.
      body: JSON schema of the body.
    """
    responses: dict[int | str, dict[str, Any]] = {status: dict(reply) for status, reply in replies.items()}
    for status in sorted({*errors, *(_EVEN_IF_OPEN if is_open else _EVERYWHERE)}):
        responses.setdefault(status, {"description": _ERRORS[status], "content": _ERROR})
    more: dict[str, Any] = {"security": [] if is_open else [{"api_key": []}]}
    if body is not None:
        more["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    if parameters:
        more["parameters"] = list(parameters)
    return {
        "summary": summary,
        "description": description,
        "status_code": min(replies),
        "response_model": None,
        "responses": responses,
        "openapi_extra": more,
    }


def in_query(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    """A parameter of an address."""
    return {"name": name, "in": "query", "schema": schema, "description": description}


def in_header(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    """A parameter that stands in a header."""
    return {"name": name, "in": "header", "schema": schema, "description": description}


_KEY = {"type": "string", "maxLength": fields.MAX_KEY_CHARACTERS, "pattern": r"^[!-~]*$"}

KEY_HEADERS = (
    in_header("Idempotency-Key", _KEY, "Retry token: the same token again returns the same job."),
    in_header("X-Correlation-Id", _KEY, "Your own id for correlating the job with other systems."),
)
"""With which a job can be submitted."""


def finish(app: FastAPI) -> None:
    """Say in the document how callers are known, and take out what FastAPI adds and is not so."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = make()
            document.setdefault("components", {})["securitySchemes"] = {
                "api_key": {"type": "http", "scheme": "bearer", "bearerFormat": "tk_..."}
            }
            documents = document["components"].setdefault("schemas", {})
            for name in ("HTTPValidationError", "ValidationError"):
                documents.pop(name, None)
            _, made = models_json_schema(
                [(schemas.ErrorDocument, "serialization")], ref_template="#/components/schemas/{model}"
            )
            document["components"]["schemas"] = dict(sorted((documents | made["$defs"]).items()))
            for path in document["paths"].values():
                for operation in path.values():
                    _tidy(operation)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way


def _tidy(operation: dict[str, Any]) -> None:
    answers = operation["responses"]
    unprocessable = answers.get("422", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if "HTTPValidationError" in unprocessable.get("$ref", ""):
        del answers["422"]
    # Where nothing is answered as JSON, FastAPI says so all the same.
    content = answers.get("200", {}).get("content", {})
    if not content.get("application/json", {}).get("schema"):
        content.pop("application/json", None)
