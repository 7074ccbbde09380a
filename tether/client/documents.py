"""The JSON that gateway and clients speak: each value's form, written by one side and read by the other."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from tether.codec import value_from_json, value_to_json
from tether.errors import InvalidRequest, TetherError, UnexpectedAnswer, UnknownModel, error_of
from tether.histories import JobHistory
from tether.jobs import JobRequest, JobState
from tether.requests import fields
from tether.statuses import JobPage, JobStatus, ModelInfo, Submitted


def json_bytes(value: object) -> bytes:
    """JSON without white space. Half of a surrogate pair, which engines may make of tokens and UTF-8 cannot
    say, is escaped."""
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def request_to_json(request: JobRequest) -> dict[str, Any]:
    """A request as the body of a submission. Times that were asked for as delays are sent as delays."""
    return fields.TABLE.wire_form.of(request)


def submitted_to_json(submitted: Submitted) -> dict[str, Any]:
    return {"object": "job.submitted", **value_to_json(submitted)}


def submitted_from_json(value: Mapping[str, Any]) -> Submitted:
    # By hand: it is all that `tether submit` reads, which so does without loading msgspec.
    submitted = Submitted(
        job_id=value["job_id"],
        correlation_id=value["correlation_id"],
        retry_token=value["retry_token"],
        state=JobState(value["state"]),
        is_new=value["is_new"],
    )
    texts = (submitted.job_id, submitted.correlation_id, submitted.retry_token)
    if not all(isinstance(text, str) for text in texts) or type(submitted.is_new) is not bool:
        raise ValueError("a field of what was submitted is of another type")
    return submitted


def status_to_json(status: JobStatus) -> dict[str, Any]:
    return {"object": "job", **value_to_json(status)}


def status_from_json(value: Mapping[str, Any]) -> JobStatus:
    return value_from_json(JobStatus, value)


def history_to_json(history: JobHistory) -> dict[str, Any]:
    return {"object": "job.history", **value_to_json(history)}


def history_from_json(value: Mapping[str, Any]) -> JobHistory:
    return value_from_json(JobHistory, value)


def page_to_json(page: JobPage) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [status_to_json(status) for status in page.jobs],
        "next_cursor": page.next_cursor,
    }


def page_from_json(value: Mapping[str, Any]) -> JobPage:
    return JobPage(tuple(map(status_from_json, value["data"])), value["next_cursor"])


def model_to_json(model: ModelInfo) -> dict[str, Any]:
    """A model in the shape of OpenAI's list, and what else there is to say."""
    document = value_to_json(model)
    return {"id": document.pop("name"), "object": "model", "created": 0, "owned_by": "tether", **document}


def model_from_json(value: Mapping[str, Any]) -> ModelInfo:
    return value_from_json(ModelInfo, {**value, "name": value["id"]})


@dataclass(frozen=True)
class DocumentForm:
    """How values of a type are written and read where their own fields are not all of it."""

    write: Callable[[Any], dict[str, Any]]
    read: Callable[[Any], Any]


_FORMS: Mapping[type, DocumentForm] = {
    JobHistory: DocumentForm(history_to_json, history_from_json),
    JobPage: DocumentForm(page_to_json, page_from_json),
    JobStatus: DocumentForm(status_to_json, status_from_json),
    ModelInfo: DocumentForm(model_to_json, model_from_json),
}


def item_kind(kind: Any) -> Any:
    """The type of a list's items; None where the type is no list."""
    return get_args(kind)[0] if get_origin(kind) is list else None


def document_of_kind(kind: Any, value: Any) -> dict[str, Any]:
    """The document that a gateway answers with where an operation returns a value of this type: the fields of
    a dataclass, or the items of a list in the form of OpenAI's lists."""
    item = item_kind(kind)
    if item is not None:
        return {"object": "list", "data": [_write(item, each) for each in value]}
    document = _write(kind, value)
    assert isinstance(document, dict), f"{kind} is no document: return a dataclass, or a list"
    return document


def value_of_kind(kind: Any, document: Any) -> Any:
    """The value of this type that a document holds, the opposite of :func:`document_of_kind`.

    Raises:
      KeyError, TypeError, ValueError: It holds none.
    """
    item = item_kind(kind)
    return _read(kind, document) if item is None else [_read(item, each) for each in document["data"]]


def _write(kind: Any, value: Any) -> Any:
    if kind in _FORMS:
        return _FORMS[kind].write(value)
    return value if isinstance(value, str | int | float) else value_to_json(value)


def _read(kind: Any, document: Any) -> Any:
    return _FORMS[kind].read(document) if kind in _FORMS else value_from_json(kind, document)


def error_to_json(error: TetherError) -> dict[str, Any]:
    """An error in the shape of OpenAI's, and whether and when a retry can help."""
    retry_after_ms = None if error.retry_after is None else round(error.retry_after * 1000)
    return {
        "error": {
            "code": error.code,
            "message": str(error),
            "type": error_type(error.http_status),
            "param": error.param if isinstance(error, InvalidRequest | UnknownModel) else None,
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
