"""The documents of jobs, as the OpenAPI document shows them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, create_model

from tether.explanations import Explanation, JobPlacements, PlacementRecord, PoolExplanation
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
        description="Why a job waits, in words. Parked: until when it may not start, that no pool meets what "
        "it asks for, that its pools take no more jobs, or that they are paused. In a pool: that this is "
        "paused, has no worker, has only such as are held back or have not loaded the model, or has more "
        "jobs than slots. Empty where it is none of these, and in lists."
    ),
    expected_at=Field(
        description="When it was expected to begin as its pool was chosen, in ms since the epoch; null where "
        "that is not known, as while it is parked or its pool paused, once it has begun, and in lists."
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


PoolExplanationBody = document_of(
    "PoolExplanationBody",
    PoolExplanation,
    excluded=Field(
        description="Why it cannot serve the job: model, version, paused, no_worker, suspect, held, "
        "unloadable, full, avoided, moved, gpu_class, region, policy, breaker, vram, context, or another "
        "word of a later version; null where it can."
    ),
    words=Field(description="The same in words; empty where it can."),
    cost_seconds=Field(description="By what pools are compared: the least cost is chosen."),
    wait_seconds=Field(description="Expected until a worker begins with the job."),
    total_seconds=Field(
        description="Expected until its last token has come, if it generates as many as it may."
    ),
    ahead=Field(description="Jobs before it, in the pool and, by their share, in others of its workers."),
    slots=Field(description="Jobs that the pool's workers run at once."),
    tokens_per_second=Field(description="Generated by one busy slot, as it was reckoned with."),
    is_measured=Field(description="Whether that was measured there, and not assumed."),
    load_seconds=Field(description="What of the wait is for loading the model."),
    terms=Field(description="Each term of the score, from 0 to 1, by name."),
)

ExplanationDocument = document_of(
    "ExplanationDocument",
    Explanation,
    kind="explanation",
    text="A choice of a pool: `cost_seconds = depth_weight * total_seconds - sum(worth[term] * term)`.",
    pool=Field(description="The pool that was chosen; null where none can serve the job."),
    why=Field(description="The same in a sentence."),
    pools=(
        list[PoolExplanationBody],  # type: ignore[valid-type]
        Field(description="The best first, those that cannot serve the job last."),
    ),
    omitted=Field(description="Number of further pools, which are not told."),
    worth=Field(description="What a term of 1 takes off the cost, in seconds, by the term's name."),
    depth_weight=Field(description="What a second until the job's last token counts."),
)

ExplanationBody = document_of(
    "ExplanationBody",
    Explanation,
    pools=(list[PoolExplanationBody], Field()),  # type: ignore[valid-type]
)

PlacementBody = document_of(
    "PlacementBody",
    PlacementRecord,
    dispatch=Field(
        description="Number of the hand-over; where no pool could serve the job, of the one to come."
    ),
    origin=Field(
        description="chosen: by the choice that is told with it. unserved: no pool could serve the job, "
        "or had room for it. "
        "repeated: it was handed over again to the pool that it had, for a Redis that was built anew. "
        "unknown: nothing is kept of its choice, as of jobs of older versions. unreadable: what is kept "
        "cannot be read."
    ),
    decided_at=Field(description="When the pool was chosen, in ms since the epoch."),
    explanation=(
        ExplanationBody | None,
        Field(description="The choice, as it was kept when it was made; null where there is none."),
    ),
    wait_seconds=Field(
        description="What was expected, from decided_at or from when the job might start, if that was later."
    ),
    begun_at=Field(description="When a worker began with it, in ms since the epoch; null where none did."),
    waited_seconds=Field(description="How long it really waited until then, from the same moment."),
)

PlacementsDocument = document_of(
    "PlacementsDocument",
    JobPlacements,
    kind="job.placements",
    job_id=Field(examples=[JOB_ID]),
    placements=(list[PlacementBody], Field()),  # type: ignore[valid-type]
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
