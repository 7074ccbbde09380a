"""The history of a job, as every backend returns it to clients: its attempts, and where it is now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tether.ids import BootId, JobId, PoolName
from tether.jobs import JobError, JobState, Priority

RUNNING = "running"
"""What the cause of an attempt is that has not ended."""


@dataclass(frozen=True, kw_only=True)
class AttemptRecord:
    """One attempt of a job.

    Times are in milliseconds since the epoch, offsets numbers of tokens. What an older version did not note
    is null.

    Attributes:
      dispatch: The hand-over to a pool in which it was drawn; a higher one than that of the attempt before
        says that the job was placed anew in between.
      attempt: Number of the draw within that.
      worker: The process that ran it: the worker's id, and which of its starts.
      pool: Where it was drawn.
      started_at, start_offset: When it was drawn, and how much earlier attempts had generated.
      ended_at: Null while it runs.
      offset: How much had been generated when it ended, or until now.
      cause: Why it ended: ``succeeded``, ``failed``, ``cancelled``, ``expired``, ``lease_lost`` (its worker
        was not heard of any more), ``died`` (its worker's process did), ``gone`` (that ended, and no job was
        the reason), ``released`` (its worker handed it over), ``revoked``, ``withdrawn``, ``superseded``,
        ``sealed``, ``unreadable``; ``running`` while it has not. Programs must expect others.
      went: Where the job went then: ``pool`` (it waited there again, for another worker), ``database`` (which
        decided: a retry, another pool, or the end) or ``end``.
      outcome: How its dispatch ended with it; null where the dispatch went on with another attempt.
      error: Why it failed.
      evidence: What else is known of the cause.
    """

    dispatch: int
    attempt: int
    worker: BootId
    pool: PoolName | None = None
    started_at: int | None = None
    start_offset: int | None = None
    ended_at: int | None = None
    offset: int = 0
    cause: str | None = None
    went: str | None = None
    outcome: str | None = None
    error: JobError | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class JobHistory:
    """All attempts of a job, and where it is now.

    Attributes:
      dispatch: Number of its newest hand-over to a pool; 0 before the first.
      pool: Pool of that; None before the first.
      since: Since when it is in its present state, in milliseconds since the epoch.
      due_at: When it is tried again, where it waits for that, in milliseconds since the epoch; else None.
      attempts: The first one first, and the one that runs last.
      dropped: Number of further attempts, of which nothing is known any more, or which are too many to tell.
      priority: The priority that it has now, or had in the end; None where an older gateway answers.
    """

    job_id: JobId
    state: JobState
    dispatch: int
    pool: PoolName | None
    since: int
    due_at: int | None
    attempts: tuple[AttemptRecord, ...]
    dropped: int = 0
    priority: Priority | None = None
