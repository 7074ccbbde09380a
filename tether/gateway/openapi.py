"""What the OpenAPI document says of each route, beside what FastAPI knows by itself."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from tether.client.backend import MOST_JOBS_A_PAGE
from tether.gateway import schemas, validation
from tether.gateway.queries import JOBS_A_PAGE
from tether.jobs import JobState

DESCRIPTION = """A task queue for model inference: submit a job, get its tokens as they are made, lose none.

Every request under `/v1` needs an API key: `Authorization: Bearer tk_...`. A key belongs to a tenant, and
sees only that tenant's jobs. Errors have one form; `code` is stable, `message` says what to do."""

_ERRORS = {
    400: "The body is not JSON in UTF-8.",
    401: "No API key, or one that is not known.",
    403: "The API key lacks the scope.",
    404: "There is no such thing here.",
    405: "This address does not take this method.",
    408: "The body did not come in time.",
    409: "The idempotency key was used for another request.",
    413: "The body is too large.",
    422: "What is asked for is not possible; the message names all that is wrong.",
    429: "Too much at once, or the quota of open jobs is used up.",
    431: "The head of the request is too large.",
    500: "The gateway failed.",
    503: "Nothing was accepted, or that is not known: send the same again, with the same keys.",
    504: "The job was not done by its deadline.",
}
_EVERYWHERE = (401, 403, 429, 431, 500, 503)


def route(
    summary: str,
    answers: dict[int, tuple[str, type[BaseModel]]],
    errors: tuple[int, ...] = (),
    *,
    everywhere: tuple[int, ...] = _EVERYWHERE,
    **more: Any,
) -> dict[str, Any]:
    """Arguments of a route's decorator."""
    first = min(answers, default=200)
    told: dict[int | str, dict[str, Any]] = {
        status: {"model": model, "description": text} for status, (text, model) in answers.items()
    }
    for status in sorted({*errors, *everywhere}):
        told.setdefault(status, {"model": schemas.ErrorDocument, "description": _ERRORS[status]})
    # Who watches over a gateway needs no key.
    more["security"] = [{"api_key": []}] if 401 in everywhere else []
    return {
        "summary": summary,
        "status_code": first,
        "response_model": None,
        "responses": told,
        "openapi_extra": more,
    }


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schemas.inlined(model)}}}


def _query(name: str, schema: dict[str, Any], description: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description, **more}


def header(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "schema": schema, "description": description}


def key_schema() -> dict[str, Any]:
    """Of a header that holds a key."""
    return {"type": "string", "maxLength": validation.LONGEST_KEY, "pattern": r"^[!-~]*$"}


_TIME = {"type": "integer", "minimum": 0, "maximum": validation.LATEST_FILTER_MS}

SUBMIT = route(
    "Submit a job",
    {
        202: ("It is durable, and will run.", schemas.SubmittedDocument),
        200: ("The job that these keys were first used for.", schemas.SubmittedDocument),
    },
    (400, 404, 408, 409, 413, 422),
    requestBody=body_of(schemas.JobRequestBody),
    parameters=[
        header("Idempotency-Key", key_schema(), "The retry token: the same twice is the same job."),
        header("X-Correlation-Id", key_schema(), "Your name for the job."),
    ],
)
BATCH = route(
    "Submit many jobs",
    {200: ("The answers, in order: each is a job or an error.", schemas.BatchDocument)},
    (400, 408, 413, 422),
    requestBody=body_of(schemas.BatchBody),
)
LIST = route(
    "List jobs, the newest first",
    {200: ("A page of jobs.", schemas.JobListDocument)},
    (422,),
    parameters=[
        _query(
            "state",
            {"type": "array", "items": {"type": "string", "enum": [state.value for state in JobState]}},
            "Any of these states.",
        ),
        _query(
            "model",
            {"type": "string", "maxLength": validation.LONGEST_LABEL, "pattern": schemas.PRINTABLE},
            "Of this model.",
        ),
        _query(
            "label",
            {"type": "array", "items": {"type": "string", "pattern": "^[a-z]+=[a-z]*$"}, "maxItems": 32},
            "With all of these marks, each written `key=value`.",
        ),
        _query("created_after", _TIME, "From this time on, in ms since the epoch."),
        _query("created_before", _TIME, "Before this time, in ms since the epoch."),
        _query(
            "limit",
            {"type": "integer", "minimum": 1, "maximum": MOST_JOBS_A_PAGE, "default": JOBS_A_PAGE},
            "Most jobs on the page.",
        ),
        _query("cursor", {"type": "string", "format": "uuid"}, "next_cursor of the page before."),
    ],
)
SHOW = route("Show a job", {200: ("What is known of it.", schemas.WholeJobDocument)}, (404,))
CANCEL = route(
    "Cancel a job",
    {200: ("Its state now. A running job ends when its worker hears of it.", schemas.StateDocument)},
    (404,),
)
FOLLOW = route("Follow a job as server-sent events", {}, (404, 422))
FOLLOW["responses"][200] = {
    "description": (
        "Events: started, delta, rerouted, restarted, finished, failed, each with the id of its place; the "
        "last one ends the stream. `interrupted`, without an id: follow again from the last id."
    ),
    "content": {
        "text/event-stream": {
            "schema": {"type": "string"},
            "example": (
                "id: 2\nevent: delta\n"
                'data: {"run":0,"offset":2,"token_ids":[7,9],"texts":["one ","two "]}\n\n'
            ),
        }
    },
}
FOLLOW["openapi_extra"]["parameters"] = [
    _query(
        "offset",
        {"type": "string", "pattern": r"^([0-9]{1,9}\.)?[0-9]{1,9}$"},
        "From where on: a number of tokens, or the id of an event.",
    ),
    header(
        "Last-Event-ID",
        {"type": "string", "pattern": r"^([0-9]{1,9}\.)?[0-9]{1,9}$"},
        "The id of the last event that arrived; it counts more than offset.",
    ),
]
MODELS = route("List models", {200: ("All models.", schemas.ModelListDocument)})
MODEL = route("Show a model", {200: ("The model.", schemas.ModelDocument)}, (404,))
KEYS = route("List API keys", {200: ("Those of the tenant.", schemas.KeyListDocument)})
CREATE_KEY = route(
    "Make an API key",
    {201: ("The key, shown this once.", schemas.NewKeyDocument)},
    (400, 408, 413, 422),
    requestBody=body_of(schemas.CreateKeyBody),
)
REVOKE_KEY = route(
    "Revoke an API key",
    {200: ("It is good no longer; open streams of it end within seconds.", schemas.KeyDocument)},
    (404,),
)
HEALTH = route("Whether the gateway is alive", {200: ("It is.", schemas.HealthDocument)}, everywhere=(431,))
READY = route(
    "Whether jobs can be accepted",
    {
        200: ("They can.", schemas.ReadyDocument),
        503: ("They cannot: the database is away.", schemas.ReadyDocument),
    },
    everywhere=(431,),
)
METRICS = route("Metrics for Prometheus", {}, everywhere=(431,))
METRICS["responses"][200] = {
    "description": "All metrics of this process.",
    "content": {"text/plain": {"schema": {"type": "string"}}},
}


def finish(app: FastAPI) -> None:
    """Say in the document how callers are known, and take out what FastAPI adds and is not so."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = make()
            document.setdefault("components", {})["securitySchemes"] = {
                "api_key": {"type": "http", "scheme": "bearer", "bearerFormat": "tk_..."}
            }
            for name in ("HTTPValidationError", "ValidationError"):
                document["components"]["schemas"].pop(name, None)
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
