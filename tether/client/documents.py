"""The JSON that gateway and clients speak: each value's form, written by one side and read by the other."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from tether.codec import value_from_json, value_to_json
from tether.explanations import Explanation, JobPlacements
from tether.histories import JobHistory
from tether.statuses import JobPage, JobStatus, ModelInfo


def json_bytes(value: object) -> bytes:
    """JSON without white space. Half of a surrogate pair, which engines may make of tokens and UTF-8 cannot
    say, is escaped."""
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def status_to_json(status: JobStatus) -> dict[str, Any]:
    return {"object": "job", **value_to_json(status)}


def status_from_json(value: Mapping[str, Any]) -> JobStatus:
    return value_from_json(JobStatus, value)


def history_to_json(history: JobHistory) -> dict[str, Any]:
    return {"object": "job.history", **value_to_json(history)}


def history_from_json(value: Mapping[str, Any]) -> JobHistory:
    return value_from_json(JobHistory, value)


def placements_to_json(placements: JobPlacements) -> dict[str, Any]:
    return {"object": "job.placements", **value_to_json(placements)}


def placements_from_json(value: Mapping[str, Any]) -> JobPlacements:
    return value_from_json(JobPlacements, value)


def explanation_to_json(explanation: Explanation) -> dict[str, Any]:
    return {"object": "explanation", **value_to_json(explanation)}


def explanation_from_json(value: Mapping[str, Any]) -> Explanation:
    return value_from_json(Explanation, value)


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
    Explanation: DocumentForm(explanation_to_json, explanation_from_json),
    JobPlacements: DocumentForm(placements_to_json, placements_from_json),
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
