"""Dead letters as clients see them: the records of jobs that are not tried again by themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from tether.errors import InvalidRequest
from tether.histories import AttemptRecord
from tether.ids import JobId, PoolName, TenantId
from tether.jobs import JobError, JobState

MAX_LETTERS_PER_PAGE = 200
"""Dead letters of a page, and of a batch that is retried."""

MAX_TOKEN_CHARACTERS = 200
"""Of a text that can be a retry token at all."""

_CURSOR = re.compile(r"(\d{1,15})\.([0-9a-f-]{36})\Z", re.ASCII)
_TEXTS = ("reason", "model", "pool")


class LetterState(StrEnum):
    """What became of a dead letter."""

    OPEN = "open"
    RETRIED = "retried"
    PURGED = "purged"
    EXPIRED = "expired"


LISTED_STATES = ("open", "retried", "all")
"""What lists can be asked for: what was purged or has expired is in none."""

WHY: Mapping[str, str] = {
    "poison": "workers that ran it died. A retry runs it again, and may kill another worker",
    "attempts_exhausted": "its attempts failed, and it has none left. A retry has as many again",
    "not_retryable": "its error is one that another attempt meets again: mend its cause first",
    "retry_excluded": "its error might go away, but the settings or the job exclude it from retries",
    "restored": "it had died already when the database was set back to a backup",
}
"""By reason: what it means, and whether a retry can help."""


@dataclass(frozen=True, kw_only=True)
class LetterFilter:
    """A filter of dead letters. None matches all.

    Attributes:
      state: ``open``, ``retried`` or ``all``.
      tenant_id: Only this tenant's; for operators.
      created_after, created_before: When the jobs died, in milliseconds since the epoch; the first inclusive,
        the second exclusive.
    """

    state: str = LetterState.OPEN.value
    reason: str | None = None
    model: str | None = None
    pool: PoolName | None = None
    tenant_id: TenantId | None = None
    created_after: int | None = None
    created_before: int | None = None


OPEN_LETTERS = LetterFilter()


class LetterPlace(NamedTuple):
    """Where a letter stands among all: newest first."""

    created_at: int
    job_id: JobId


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """The record of a job that is not tried again by itself. Times are milliseconds since the epoch.

    Attributes:
      job_id: The dead job.
      pool: Of its last hand-over; None if it had none.
      reason: Why it is not retried automatically, as a stable name.
      why: The same in words.
      retryable: Whether a retry can succeed. Others are retried only by force.
      error: Of its last attempt.
      evidence: What is known of how workers died that ran it; see :func:`tether.deaths.evidence_of_deaths`.
      attempts: Its newest attempts, the oldest of them first. Messages of their errors may be shortened.
      dropped: Number of further attempts.
      trace_id: Of its trace (W3C); None if it has none.
      retry_token: Retries it once, as a new job. Empty where it was purged or has expired.
      retry_of: The dead job that it was itself a retry of.
      retried_as: The job that its token made.
      created_at: When it died.
      closed_at: When it was retried or purged, or expired; None while it is open.
      expires_at: When it will expire; None if never.
      problem: What of it cannot be read; None if all can be.
    """

    job_id: JobId
    tenant_id: TenantId
    correlation_id: str = ""
    model: str = ""
    pool: PoolName | None = None
    reason: str = ""
    why: str = ""
    retryable: bool = False
    error: JobError | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    attempts: tuple[AttemptRecord, ...] = ()
    dropped: int = 0
    trace_id: str | None = None
    retry_token: str = ""
    state: LetterState = LetterState.OPEN
    retry_of: JobId | None = None
    retried_as: JobId | None = None
    created_at: int = 0
    closed_at: int | None = None
    expires_at: int | None = None
    problem: str | None = None


@dataclass(frozen=True)
class RetryLink:
    """One job of a chain of retries.

    Attributes:
      reason: Of its dead letter; None if it has none.
    """

    job_id: JobId
    state: JobState
    created_at: int
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class LetterDetails(DeadLetter):
    """A dead letter, and the jobs that it is linked with.

    Attributes:
      chain: All jobs of the chain of retries that it belongs to, the first one first; at most 20 before it
        and 20 after it.
    """

    chain: tuple[RetryLink, ...] = ()


@dataclass(frozen=True)
class LetterPage:
    """Some dead letters, newest first, and the cursor of the next page; None where there is none.

    A page may hold fewer letters than the limit, or none, and still be followed by another.
    """

    letters: tuple[DeadLetter, ...]
    next_cursor: str | None


@dataclass(frozen=True, kw_only=True)
class LetterRetry:
    """What came of retrying a dead letter.

    Attributes:
      job_id: The dead job.
      retried_as: The job that retries it; None where it could not be retried.
      state: Of that job.
      is_new: Whether this call made it. False: the token was used before, and this is the job that it made.
      error: Why it could not be retried.
    """

    job_id: JobId
    retried_as: JobId | None = None
    state: JobState | None = None
    is_new: bool = False
    error: JobError | None = None


@dataclass(frozen=True)
class LetterRetries:
    """A batch of retries, and the cursor of the next one; None where all matching letters were looked at."""

    retries: tuple[LetterRetry, ...]
    next_cursor: str | None


@dataclass(frozen=True)
class LetterPurge:
    """What came of purging a batch.

    Attributes:
      purged: Number of letters that were purged.
      next_cursor: Cursor of the next batch; None where all matching letters were looked at.
      failed: Dead jobs whose letters could not be purged, since what is kept of them is damaged.
    """

    purged: int
    next_cursor: str | None
    failed: tuple[JobId, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LetterSummary:
    """How many open letters there are. Times are milliseconds since the epoch.

    Attributes:
      open: Number of open letters, counted up to a limit.
      is_exact: Whether all were counted.
      oldest_at: When the oldest died; None without any.
      retention_ms: Age at which letters expire; None if never.
      next_expiry_at: When the oldest expires; None if it does not.
    """

    open: int
    is_exact: bool
    oldest_at: int | None
    retention_ms: int | None
    next_expiry_at: int | None


def cursor_of(place: LetterPlace) -> str:
    """The cursor behind a letter."""
    return f"{place.created_at}.{place.job_id}"


def place_of(cursor: object) -> LetterPlace | None:
    """The place that a cursor stands for; None without a cursor.

    Raises:
      InvalidRequest: It is none.
    """
    if cursor is None:
        return None
    match = _CURSOR.match(cursor) if isinstance(cursor, str) else None
    if match is None:
        raise InvalidRequest(
            f"cursor={repr(cursor)[:100]} was not returned by a previous page: use next_cursor of that page"
        )
    return LetterPlace(int(match[1]), JobId(match[2]))


def check_letter_limit(limit: object) -> None:
    """Check the limit of a page or batch.

    Raises:
      InvalidRequest: It is not possible.
    """
    if type(limit) is not int or not 1 <= limit <= MAX_LETTERS_PER_PAGE:
        raise InvalidRequest(
            f"limit={repr(limit)[:100]} is invalid: limit must be an integer from 1 to {MAX_LETTERS_PER_PAGE}"
        )


def why_dead(reason: str) -> str:
    """A reason in words."""
    return WHY.get(reason, "")
