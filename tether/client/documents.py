"""The JSON that gateway and clients speak: each value's form, written by one side and read by the other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tether.client.backend import JobPage, JobStatus, ModelInfo, StreamEvent, Submitted
from tether.errors import InvalidRequest, TetherError, UnexpectedAnswer, error_of
from tether.jobs import JobError, JobRequest, JobState, Piece, messages_to_json, sampling_to_json

INTERRUPTED = "interrupted"
"""The event with which a gateway ends a stream before its end. It has no id."""


def json_bytes(value: object) -> bytes:
    """JSON without white space. Half of a surrogate pair, which engines may make of tokens and UTF-8 cannot
    say, is escaped."""
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def request_to_json(request: JobRequest) -> dict[str, Any]:
    """A request as the body of a submission. Times that were asked for as delays are sent as delays."""
    told: dict[str, Any] = {
        "model": request.model,
        **(
            {"messages": messages_to_json(request.messages)}
            if request.messages
            else {"prompt": request.prompt}
        ),
        "priority": request.priority.value,
        **sampling_to_json(request.sampling),
    }
    optional = {
        "adapter": request.adapter,
        "labels": dict(request.labels),
        "correlation_id": request.correlation_id,
        "retry_token": request.retry_token,
        "traceparent": request.traceparent,
        "delay_ms": request.delay_ms,
        "time_limit_ms": request.time_limit_ms,
        "not_before": 0 if request.delay_ms else request.not_before,
        "deadline": 0 if request.time_limit_ms else request.deadline,
    }
    return told | {name: value for name, value in optional.items() if value}


def submitted_to_json(found: Submitted) -> dict[str, Any]:
    return {
        "object": "job.submitted",
        "job_id": found.job_id,
        "correlation_id": found.correlation_id,
        "retry_token": found.retry_token,
        "state": found.state.value,
        "is_new": found.is_new,
    }


def submitted_from_json(value: Mapping[str, Any]) -> Submitted:
    return Submitted(
        value["job_id"],
        value["correlation_id"],
        value["retry_token"],
        JobState(value["state"]),
        value["is_new"],
    )


def status_to_json(status: JobStatus) -> dict[str, Any]:
    return {
        "object": "job",
        "job_id": status.job_id,
        "correlation_id": status.correlation_id,
        "retry_token": status.retry_token,
        "state": status.state.value,
        "model": status.model,
        "priority": str(status.priority),
        "labels": dict(status.labels),
        "pool": status.pool,
        "dispatch": status.dispatch,
        "attempts": status.attempts,
        "offset": status.offset,
        "created_at": status.created_at,
        "finished_at": status.finished_at,
        "error": None if status.error is None else _job_error_to_json(status.error),
        "input_tokens": status.input_tokens,
        "output_tokens": status.output_tokens,
    }


def status_from_json(value: Mapping[str, Any]) -> JobStatus:
    error = value["error"]
    return JobStatus(
        job_id=value["job_id"],
        correlation_id=value["correlation_id"],
        retry_token=value["retry_token"],
        state=JobState(value["state"]),
        model=value["model"],
        priority=value["priority"],
        labels=value["labels"],
        pool=value["pool"],
        dispatch=value["dispatch"],
        attempts=value["attempts"],
        offset=value["offset"],
        created_at=value["created_at"],
        finished_at=value["finished_at"],
        error=None if error is None else JobError(**error),
        input_tokens=value["input_tokens"],
        output_tokens=value["output_tokens"],
    )


def _job_error_to_json(error: JobError) -> dict[str, Any]:
    return {
        "code": error.code,
        "message": error.message,
        "retryable": error.retryable,
        "retry_after_ms": error.retry_after_ms,
    }


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
    return {
        "id": model.name,
        "object": "model",
        "created": 0,
        "owned_by": "tether",
        "version": model.version,
        "context": model.context,
        "adapters": list(model.adapters),
        "workers": model.workers,
    }


def model_from_json(value: Mapping[str, Any]) -> ModelInfo:
    return ModelInfo(
        name=value["id"],
        version=value["version"],
        context=value["context"],
        adapters=tuple(value["adapters"]),
        workers=value["workers"],
    )


def error_to_json(error: TetherError) -> dict[str, Any]:
    """An error in the shape of OpenAI's, and whether and when a retry can help."""
    retry_after_ms = None if error.retry_after is None else round(error.retry_after * 1000)
    return {
        "error": {
            "code": error.code,
            "message": str(error),
            "type": error_type(error.http_status),
            "param": error.param if isinstance(error, InvalidRequest) else None,
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
        raise UnexpectedAnswer("an error was answered in a form that is none of Tether's") from None
    return error_of(code, message, None if not isinstance(wait, int | float) else wait / 1000)


def event_id(run: int, offset: int) -> str:
    """The id of an event in a stream of server-sent events: where it ends."""
    return f"{run}.{offset}" if run else str(offset)


def position_of(text: str) -> tuple[int, int]:
    """The run and offset of an event's id.

    Raises:
      ValueError: It is none.
    """
    run, dot, offset = text.rpartition(".")
    if not (offset.isascii() and offset.isdigit()) or (dot and not (run.isascii() and run.isdigit())):
        raise ValueError(f"{text[:100]!r} is no id of an event")
    return int(run or 0), int(offset)


def event_to_json(event: StreamEvent) -> dict[str, Any]:
    """The data of an event, beside its kind and id: a delta's tokens, or what the others have to say."""
    told: dict[str, Any] = {"run": event.run, "offset": event.offset}
    if event.kind == "delta":
        told["token_ids"] = [piece.token_id for piece in event.pieces]
        told["texts"] = [piece.text for piece in event.pieces]
        return told
    return {**event.details, **told}


def event_from_json(kind: str, value: Mapping[str, Any]) -> StreamEvent:
    """The event of this kind with this data.

    Raises:
      KeyError, TypeError, ValueError: It is no such data.
    """
    run, offset = int(value["run"]), int(value["offset"])
    if kind == "delta":
        pieces = tuple(map(Piece, value["token_ids"], value["texts"]))
        return StreamEvent(kind=kind, run=run, offset=offset, pieces=pieces)
    details = {name: one for name, one in value.items() if name not in ("run", "offset")}
    return StreamEvent(kind=kind, run=run, offset=offset, details=details)
