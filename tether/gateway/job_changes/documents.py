"""The documents of changes of jobs, as the OpenAPI document shows them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from tether.gateway.jobs.documents import JOB_ID, JobErrorBody
from tether.gateway.schemas import Document, document_of
from tether.job_changes import MAX_CHANGES_PER_CALL, JobChange
from tether.job_filters import MAX_FILTER_CHARACTERS, MAX_FILTER_TIME_MS
from tether.jobs import JobState, Priority
from tether.requests import fields
from tether.requests.rules import PRINTABLE

CHANGES_PER_CALL = 100
"""Jobs of a batch where nobody says how many."""

JobChangeDocument = document_of(
    "JobChangeDocument",
    JobChange,
    job_id=Field(examples=[JOB_ID]),
    state=Field(description="The job's state after it."),
    error=(JobErrorBody | None, Field(description="Why the job was not changed.")),
)


class JobChangesDocument(Document):
    """What came of a batch, the newest job first."""

    object: Literal["list"]
    data: list[JobChangeDocument]  # type: ignore[valid-type]
    next_cursor: str | None = Field(description="Cursor of the next batch; null after the last one.")


def _text(most: int, description: str) -> Any:
    return Field(None, max_length=most, pattern=PRINTABLE, description=description)


class JobWhereBody(Document):
    """Which jobs; all that are given must match. Without any, `all` must be true."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    all: bool = Field(False, description="Every one is meant: true stands alone, without filters.")
    state: list[JobState] = Field([], description="Only jobs in any of these states.")
    model: str | None = _text(fields.MAX_NAME_BYTES, "Only jobs for this model.")
    labels: dict[str, str] = Field({}, description="Only jobs with all of these labels.")
    pool: str | None = _text(MAX_FILTER_CHARACTERS, "Only jobs that this pool has, or had last.")
    tenant: str | None = _text(MAX_FILTER_CHARACTERS, "Only this tenant's; for operators.")
    created_after: int | None = Field(None, ge=0, le=MAX_FILTER_TIME_MS)
    created_before: int | None = Field(None, ge=0, le=MAX_FILTER_TIME_MS)


class PriorityBody(Document):
    """What a job that was submitted gets."""

    model_config = ConfigDict(json_schema_extra={"required": ["priority"]})

    priority: Priority = Field(description="Its new priority class.")


class CancelJobsBody(Document):
    """A request to cancel a batch of jobs."""

    model_config = ConfigDict(json_schema_extra={"required": ["where"]})

    where: JobWhereBody
    dry_run: bool = Field(False, description="Only tell which jobs it would be.")
    limit: int = Field(CHANGES_PER_CALL, ge=1, le=MAX_CHANGES_PER_CALL)
    cursor: str | None = Field(None, description="next_cursor of the batch before.")


class ReprioritiseJobsBody(CancelJobsBody):
    """A request to give a batch of jobs another priority."""

    model_config = ConfigDict(json_schema_extra={"required": ["where", "priority"]})

    priority: Priority = Field(description="Their new priority class.")
