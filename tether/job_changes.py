"""Changes of jobs, many at once or one: which jobs they may choose, and what came of each."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tether.errors import InvalidRequest
from tether.ids import JobId, TenantId
from tether.job_filters import JobFilter
from tether.jobs import JobError, JobState, Priority
from tether.requests.checking import joined
from tether.requests.fields import TABLE
from tether.requests.rules import shown

MAX_CHANGES_PER_CALL = 200
"""Jobs that one call changes; the next one goes on behind them."""

OPEN_STATES = tuple(state for state in JobState if not state.is_final)
"""States of jobs that can be cancelled, or get another priority."""


@dataclass(frozen=True, kw_only=True)
class JobChange:
    """What came of changing one job.

    Attributes:
      state: The job's state after it; as it is, where the call only looked.
      error: Why the job was not changed.
    """

    job_id: JobId
    tenant_id: TenantId
    state: JobState
    error: JobError | None = None


@dataclass(frozen=True)
class JobChanges:
    """What came of a batch, and the cursor of the next one; None where all matching jobs were looked at."""

    changes: tuple[JobChange, ...]
    next_cursor: str | None


def check_change_limit(limit: object) -> None:
    """Check the limit of a batch.

    Raises:
      InvalidRequest: It is not possible.
    """
    if type(limit) is not int or not 1 <= limit <= MAX_CHANGES_PER_CALL:
        raise InvalidRequest(
            f"limit={repr(limit)[:100]} is invalid: limit must be an integer from 1 to {MAX_CHANGES_PER_CALL}"
        )


def cancellable(job_filter: JobFilter) -> JobFilter:
    """The same filter, of jobs that have not ended.

    Raises:
      InvalidRequest: It asks for jobs that have.
    """
    return _only(job_filter, OPEN_STATES, "only jobs that have not ended can be cancelled")


def reprioritisable(job_filter: JobFilter) -> JobFilter:
    """The same filter, of jobs that have not ended.

    Raises:
      InvalidRequest: It asks for jobs that have.
    """
    return _only(job_filter, OPEN_STATES, "only jobs that have not ended can get another priority")


def read_priority(value: object) -> Priority:
    """The priority that a value names.

    Raises:
      InvalidRequest: It names none.
    """
    problems = list(TABLE.fields["priority"].rule.problems("priority", value))
    if problems:
        raise InvalidRequest(joined(problems))
    return Priority(str(value))


def _only(job_filter: JobFilter, states: tuple[JobState, ...], why: str) -> JobFilter:
    for state in job_filter.states:
        if state not in states:
            raise InvalidRequest(f"state={shown(state.value)} is invalid here: {why}")
    return replace(job_filter, states=job_filter.states or states)
