"""Statuses of jobs and models: the values that every backend returns to clients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from tether.errors import InvalidRequest
from tether.ids import JobId, PoolName
from tether.job_names import is_job_id
from tether.jobs import JobError, JobState, Priority

MAX_JOBS_PER_PAGE = 200


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """What clients see of a job as the database has it.

    Attributes:
      pool: Pool of the newest dispatch; None before the first.
      dispatch: Number of the newest dispatch to Redis; 0 before the first.
      attempts: Number of attempts that ended: with a result, an error, or the job's cancellation or deadline.
        Those that a dead worker or a hand-over cut off do not count.
      created_at: Milliseconds since the epoch.
      finished_at: When the database recorded the end, in milliseconds since the epoch; that follows the end
        itself within milliseconds.
      error: Why the job, or its last attempt, failed; or, if it succeeded, that its output is lost.
      input_tokens: Number of tokens of the prompt; 0 until the end is recorded.
      retry_of: The dead job whose dead letter it retries; None if it retries none.
      degraded_from: The version of a model that was asked for, as ``NAME@VERSION``, where the tenant's policy
        let it run on a lesser one rather than be refused; else None.
    """

    job_id: JobId
    correlation_id: str
    retry_token: str
    state: JobState
    model: str
    priority: Priority
    labels: Mapping[str, str]
    pool: PoolName | None
    dispatch: int
    attempts: int
    created_at: int
    finished_at: int | None
    error: JobError | None
    input_tokens: int
    output_tokens: int
    retry_of: JobId | None = None
    degraded_from: str | None = None


@dataclass(frozen=True, kw_only=True)
class JobStatus(JobRecord):
    """The status of a job.

    Attributes:
      offset: Number of tokens generated so far.
      retried_as: The job that retries its dead letter; None if there is none.
      deadline: When it expires, running or not, in milliseconds since the epoch; None if never.
      expires_at: When it expires unless a worker has begun it, in milliseconds since the epoch; None if never
        and where one may have.
      waits_for: Why it waits, in words. Parked: until when it may not start, that no pool meets what it asks
        for, that its pools take no more jobs, or that they are paused. In a pool: that this is paused, has no
        worker, has only such as are held back or have not loaded the model, or has more jobs than slots.
        Empty where it is none of these, and in lists.
      expected_at: When it was expected to begin as its pool was chosen, in milliseconds since the epoch. None
        where that is not known, as while it is parked or its pool paused, once it has begun, and in lists.
    """

    offset: int
    retried_as: JobId | None = None
    deadline: int | None = None
    expires_at: int | None = None
    waits_for: str = ""
    expected_at: int | None = None


def status_of(*sources: object, **values: Any) -> JobStatus:
    """A status, each field from ``values``, else from the first of the sources that has an attribute of its
    name.

    Raises:
      AttributeError: A field is nowhere.
    """
    for name in (one.name for one in fields(JobStatus) if one.name not in values):
        source = next((source for source in sources if hasattr(source, name)), sources[-1])
        values[name] = getattr(source, name)
    return JobStatus(**values)


@dataclass(frozen=True)
class JobPage:
    """Some jobs, newest first, and the cursor of the next page; None where there is none.

    A page may hold fewer jobs than the limit, or none, and still be followed by another.
    """

    jobs: tuple[JobStatus, ...]
    next_cursor: str | None


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A configured model.

    Attributes:
      context: Maximum number of tokens of prompt and answer together.
      adapters: Names of the adapters that jobs can use.
      workers: Number of live workers that serve it. While there are none, its jobs wait.
      silent_workers: Number of further workers that announce it and draw no jobs, as those that cannot reach
        Redis.
      unavailable_workers: Number of further workers that have it and are given no jobs, by what they are:
        ``cordoned``, ``draining``, ``unroutable`` or ``revoked``.
      held_workers: Why workers that serve it are held back from the caller's jobs, by their ids: they fail
        what others do, and get one at a time.
      failing_workers: Why workers cannot load it, by their ids. They try again by themselves.
      shut_regions: Why circuit breakers keep jobs from regions, by region: it fails there, or is slow.
      pools: Names of the pools in which live workers serve it.
      gpu_class, region: The only ones in which it may be served; empty is any.
      is_loaded: Whether one of the workers has it loaded. Else its next job waits until one has. True where
        an older gateway does not tell.
    """

    name: str
    version: str
    context: int
    adapters: tuple[str, ...] = ()
    workers: int = 0
    silent_workers: int = 0
    unavailable_workers: Mapping[str, int] = field(default_factory=dict)
    held_workers: Mapping[str, str] = field(default_factory=dict)
    failing_workers: Mapping[str, str] = field(default_factory=dict)
    shut_regions: Mapping[str, str] = field(default_factory=dict)
    pools: tuple[PoolName, ...] = ()
    gpu_class: str = ""
    region: str = ""
    is_loaded: bool = True


def absence_text(model: ModelInfo) -> str:
    """Which workers of a model there are that are given no jobs, in words; empty where there is none."""
    counts = [
        f"{count} {'is' if count == 1 else 'are'} {state}"
        for state, count in sorted(model.unavailable_workers.items())
    ]
    if silent := model.silent_workers:
        counts.append(f"{silent} announced, but {'draws' if silent == 1 else 'draw'} no jobs")
    return "; ".join(counts)


def check_page(cursor: object, limit: object) -> None:
    """Check cursor and limit of a page.

    Raises:
      InvalidRequest: One of them is invalid.
    """
    if type(limit) is not int or not 1 <= limit <= MAX_JOBS_PER_PAGE:
        raise InvalidRequest(
            f"limit={repr(limit)[:100]} is invalid: limit must be an integer from 1 to {MAX_JOBS_PER_PAGE}"
        )
    if cursor is not None and not is_job_id(cursor):
        raise InvalidRequest(
            f"cursor={repr(cursor)[:100]} was not returned by a previous page: use next_cursor of that page"
        )
