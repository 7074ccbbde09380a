"""The documents of jobs, as the OpenAPI document shows them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, create_model

from tether.gateway.bodies import MAX_JOBS
from tether.gateway.schemas import Document, ErrorBody, document_of
from tether.histories import AttemptRecord, JobHistory
from tether.jobs import JobError, JobState, Submitted
from tether.requests.schema import request_schema
from tether.statuses import JobStatus

JOB_ID = "019ab0c1-7d5e-7aaa-8bbb-0123456789ab"


def job_request_body() -> dict[str, Any]:
    """The schema of a request for a job."""
    return {
        "title": "JobRequestBody",
        "description": "A request for a job: with a prompt, or with messages.",
        "examples": [
            {"model": "tiny", "prompt": "Once upon a time"},
            {"model": "tiny", "messages": [{"role": "user", "content": "Tell me a story."}]},
            {
                "model": "tiny",
                "prompt": "Once upon a time",
                "max_tokens": 64,
                "temperature": 0.7,
                "seed": 7,
                "stop": ["The end"],
                "priority": "batch",
                "labels": {"team": "search"},
                "delay_ms": 60000,
                "time_limit_ms": 3600000,
            },
        ],
        **request_schema(),
    }


def batch_body() -> dict[str, Any]:
    """The schema of requests for many jobs."""
    jobs = {"type": "array", "items": job_request_body(), "minItems": 1, "maxItems": MAX_JOBS}
    return {
        "title": "BatchBody",
        "description": "Requests for many jobs.",
        "type": "object",
        "properties": {"jobs": jobs},
        "required": ["jobs"],
        "additionalProperties": False,
    }


SubmittedDocument = document_of(
    "SubmittedDocument",
    Submitted,
    kind="job.submitted",
    job_id=Field(examples=[JOB_ID]),
    is_new=Field(description="Whether this request created the job."),
)


class BatchItem(Document):
    """The answer to one request of a batch: a job or an error."""

    status: int = Field(description="HTTP status that the job would have received if submitted alone.")
    job: SubmittedDocument | None = None  # type: ignore[valid-type]
    error: ErrorBody | None = None


class BatchDocument(Document):
    """The answers to a batch, in order."""

    object: Literal["list"]
    data: list[BatchItem]


JobErrorBody = document_of("JobErrorBody", JobError, text="Why a job failed, or its last attempt.")

JobDocument = document_of(
    "JobDocument",
    JobStatus,
    kind="job",
    job_id=Field(examples=[JOB_ID]),
    error=(JobErrorBody | None, Field()),
    attempts=Field(
        description="Number of attempts that ended: with a result, an error, or the job's cancellation or "
        "deadline. Those that a dead worker or a hand-over cut off do not count."
    ),
    offset=Field(description="Number of tokens generated so far."),
    deadline=Field(description="When it expires, running or not, in ms since the epoch; null if never."),
    expires_at=Field(
        description="When it expires unless a worker has begun it, in ms since the epoch; null if never, and "
        "where one may have."
    ),
    waits_for=Field(
        description="Why a parked job waits, in words: until when it may not start, that no pool meets what "
        "it asks for, or that its pools take no more jobs. Empty where it is none of these, and in lists."
    ),
)


AttemptBody = document_of(
    "AttemptBody",
    AttemptRecord,
    error=(JobErrorBody | None, Field(description="Why it failed.")),
    worker=Field(description="The process that ran it: the worker's id, and which of its starts."),
    ended_at=Field(description="In ms since the epoch; null while it runs."),
    cause=Field(
        description="Why it ended: succeeded, failed, cancelled, expired, lease_lost, died, gone, released, "
        "revoked, withdrawn, superseded, sealed, unreadable, or another word of a later version; running "
        "while it has not."
    ),
    went=Field(description="Where the job went then: pool, database or end."),
    outcome=Field(description="How its dispatch ended with it; null where that went on."),
    evidence=Field(description="What else is known of the cause."),
)

HistoryDocument = document_of(
    "HistoryDocument",
    JobHistory,
    kind="job.history",
    job_id=Field(examples=[JOB_ID]),
    since=Field(description="Since when it is in its present state, in ms since the epoch."),
    due_at=Field(description="When it is tried again, where it waits for that, in ms since the epoch."),
    attempts=(list[AttemptBody], Field()),  # type: ignore[valid-type]
    dropped=Field(
        description="Number of further attempts: nothing is known of them any more, or they are too many."
    ),
)


class ResultBody(Document):
    """The result of a job."""

    text: str
    token_ids: list[int]
    finish_reason: str = Field(description="stop or length; empty if the job did not succeed.")


WholeJobDocument = create_model(
    "WholeJobDocument",
    __base__=JobDocument,
    __doc__="What is known of a job, and what it made once it has ended.",
    result=(ResultBody | None, ...),
)


class JobListDocument(Document):
    """A page of jobs, newest first."""

    object: Literal["list"]
    data: list[JobDocument]  # type: ignore[valid-type]
    next_cursor: str | None = Field(description="Cursor of the next page; null on the last one.")


class StateDocument(Document):
    """A job's state after a request to cancel it."""

    object: Literal["job.state"]
    job_id: str
    state: JobState
