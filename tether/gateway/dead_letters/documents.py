"""The documents of dead letters, as the OpenAPI document shows them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from tether.dead_letters import (
    LISTED_STATES,
    MAX_LETTERS_PER_PAGE,
    MAX_TOKEN_CHARACTERS,
    DeadLetter,
    LetterDetails,
    LetterPurge,
    LetterRetry,
    LetterSummary,
    RetryLink,
)
from tether.gateway.jobs.documents import JOB_ID, AttemptBody, JobErrorBody
from tether.gateway.schemas import Document, document_of
from tether.job_filters import MAX_FILTER_CHARACTERS, MAX_FILTER_TIME_MS
from tether.jobs import JobState
from tether.requests.rules import PRINTABLE

LETTERS_PER_PAGE = 50
"""Dead letters of a page or batch where nobody says how many."""

CURSOR_PATTERN = r"^[0-9]{1,15}\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"

_OF_LETTER: dict[str, Any] = {
    "job_id": Field(examples=[JOB_ID]),
    "error": (JobErrorBody | None, Field(description="Of its last attempt.")),
    "reason": Field(examples=["attempts_exhausted"], description="Why it is not retried automatically."),
    "retryable": Field(description="Whether a retry can succeed. Others are retried only by force."),
    "evidence": Field(description="What is known of how workers died that ran it."),
    "attempts": (list[AttemptBody], Field(description="Its attempts, the oldest first.")),  # type: ignore[valid-type]
    "retry_token": Field(description="Retries it once. Empty where it was purged or has expired."),
    "problem": Field(description="What of it cannot be read; null if all can be."),
}

DeadLetterDocument = document_of("DeadLetterDocument", DeadLetter, kind="dead_letter", **_OF_LETTER)
RetryLinkDocument = document_of("RetryLinkDocument", RetryLink)
LetterDetailsDocument = document_of(
    "LetterDetailsDocument",
    LetterDetails,
    kind="dead_letter",
    chain=(list[RetryLinkDocument], Field(description="The chain of retries, the first job first.")),  # type: ignore[valid-type]
    **_OF_LETTER,
)
LetterSummaryDocument = document_of("LetterSummaryDocument", LetterSummary)
LetterPurgeDocument = document_of(
    "LetterPurgeDocument",
    LetterPurge,
    failed=Field(
        description="Dead jobs whose letters could not be purged, since what is kept of them is damaged."
    ),
)
LetterRetryDocument = document_of(
    "LetterRetryDocument",
    LetterRetry,
    state=(JobState | None, Field(description="Of the job that retries it.")),
    error=(JobErrorBody | None, Field(description="Why it could not be retried.")),
)


class LetterListDocument(Document):
    """A page of dead letters, newest first."""

    object: Literal["list"]
    data: list[DeadLetterDocument]  # type: ignore[valid-type]
    next_cursor: str | None = Field(description="Cursor of the next page; null on the last one.")


class LetterRetriesDocument(Document):
    """What came of a batch of retries."""

    object: Literal["list"]
    data: list[LetterRetryDocument]  # type: ignore[valid-type]
    next_cursor: str | None = Field(description="Cursor of the next batch; null after the last one.")


class RetryLetterBody(Document):
    """A request to retry one dead letter."""

    retry_token: str = Field(max_length=MAX_TOKEN_CHARACTERS, description="Of the dead letter.")
    force: bool = Field(False, description="Retry it although the letter says that it would fail.")


def _text(description: str) -> Any:
    return Field(None, max_length=MAX_FILTER_CHARACTERS, pattern=PRINTABLE, description=description)


class LetterWhereBody(Document):
    """Which dead letters; all that are given must match. Without any, `all` must be true."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    all: bool = Field(False, description="Every one is meant: true stands alone, without filters.")
    state: Literal["open"] = Field("open", description="Only open ones can be retried or purged.")
    reason: str | None = _text("Only letters with this reason.")
    model: str | None = _text("Only letters of jobs for this model.")
    pool: str | None = _text("Only letters of jobs that this pool had last.")
    tenant: str | None = _text("Only this tenant's; for operators.")
    created_after: int | None = Field(None, ge=0, le=MAX_FILTER_TIME_MS)
    created_before: int | None = Field(None, ge=0, le=MAX_FILTER_TIME_MS)


class PurgeLettersBody(Document):
    """A request to purge a batch of dead letters."""

    model_config = ConfigDict(json_schema_extra={"required": ["where"]})

    where: LetterWhereBody
    limit: int = Field(LETTERS_PER_PAGE, ge=1, le=MAX_LETTERS_PER_PAGE)
    cursor: str | None = Field(None, pattern=CURSOR_PATTERN, description="Of the batch before.")


class RetryLettersBody(PurgeLettersBody):
    """A request to retry a batch of dead letters."""

    force: bool = Field(False, description="Also letters that say that a retry would fail.")


STATE = {"type": "string", "enum": list(LISTED_STATES), "default": "open"}
TEXT = {"type": "string", "maxLength": MAX_FILTER_CHARACTERS, "pattern": PRINTABLE}
TIME = {"type": "integer", "minimum": 0, "maximum": MAX_FILTER_TIME_MS}
LIMIT = {"type": "integer", "minimum": 1, "maximum": MAX_LETTERS_PER_PAGE, "default": LETTERS_PER_PAGE}
CURSOR = {"type": "string", "pattern": CURSOR_PATTERN}
