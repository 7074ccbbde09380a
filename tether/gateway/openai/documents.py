"""Chat completions in the form of OpenAI's: documents, and why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tether.client.handles import failure_of
from tether.errors import (
    GatewayStopping,
    InvalidRequest,
    JobFailed,
    ReaderTooSlow,
    StreamDiverged,
    StreamInterrupted,
    TetherError,
    error_of,
)
from tether.ids import JobId
from tether.job_names import CHAT_PREFIX
from tether.jobs import JobError, JobState
from tether.models.registry import ModelVersion
from tether.streams.events import StreamEvent

_FINGERPRINT_DIGITS = 16

_CAUSES: Mapping[type[TetherError], str] = {
    GatewayStopping: "the gateway is shutting down",
    ReaderTooSlow: "its reader is slower than the job",
    StreamDiverged: "the job had to begin anew, and its text is not the one that was sent",
}


@dataclass(frozen=True)
class ChatHead:
    """The common fields of all parts of one completion.

    Attributes:
      job_id: The job that generates it.
      model: The model that it runs on.
    """

    job_id: JobId
    model: ModelVersion

    def document(self, kind: str) -> dict[str, Any]:
        # A job's id begins with the milliseconds since the epoch at which it was made.
        return {
            "id": f"{CHAT_PREFIX}{self.job_id}",
            "object": kind,
            "created": int(self.job_id.replace("-", "")[:12], 16) // 1000,
            "model": self.model.name,
            "system_fingerprint": f"fp_{self.model.digest[:_FINGERPRINT_DIGITS]}",
        }


def completion(head: ChatHead, text: str, last: StreamEvent, output_tokens: int) -> dict[str, Any]:
    """A whole answer.

    Args:
      last: The event with which the job succeeded.
    """
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": None,
        "finish_reason": finish_reason(last),
    }
    return {**head.document("chat.completion"), "choices": [choice], "usage": usage(last, output_tokens)}


def chunk(head: ChatHead, delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    """A part of an answer."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return {**head.document("chat.completion.chunk"), "choices": [choice]}


def usage_chunk(head: ChatHead, last: StreamEvent) -> dict[str, Any]:
    """The chunk that tells of the tokens."""
    return {**head.document("chat.completion.chunk"), "choices": [], "usage": usage(last, last.offset)}


def finish_reason(last: StreamEvent) -> str:
    return "length" if last.details.get("reason") == "length" else "stop"


def usage(last: StreamEvent, output_tokens: int) -> dict[str, int]:
    read = int(last.details.get("input_tokens", 0))
    return {
        "prompt_tokens": read,
        "completion_tokens": output_tokens,
        "total_tokens": read + output_tokens,
    }


def end_error(job_id: JobId, last: StreamEvent, error: JobError | None) -> TetherError:
    """Return why a job has no completion.

    A dead job has used all its attempts: whatever the error, the same request must not be retried
    automatically. If the request was at fault, the error is returned unchanged.

    Args:
      last: The event with which it failed.
      error: The error, if known.
    """
    if error is None or last.details.get("state") != JobState.DEAD:
        return failure_of(job_id, last)
    cause = error_of(error.code, error.message)
    if cause.http_status < 500 and not cause.retryable:
        if isinstance(cause, InvalidRequest):
            # The worker, which says so, has nothing else of the request to complain about.
            cause.param = "messages"
        return cause
    return JobFailed(f"job {job_id} failed permanently ({error.code}): {error.message}")


def interrupted(error: TetherError) -> TetherError:
    """Return an error that interrupts a completion, worded for clients that do not follow jobs' streams."""
    if not isinstance(error, StreamInterrupted):
        return error
    interruption = type(error)(
        f"the gateway interrupted this completion, since {_CAUSES.get(type(error), str(error))}: retry the "
        "request; with the same Idempotency-Key, if it had one, it is the same job"
    )
    interruption.retry_after = error.retry_after
    return interruption
