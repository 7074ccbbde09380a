"""Moves of jobs to the lanes of other priorities, as the database's side asks for them."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from tether.ids import JobId
from tether.jobs import JobState, Priority

MOVED_LANE_SHARE = 2
"""A lane that jobs are moved to may hold so many times as many as one that they are placed in: else a tenant
would fill Redis by moving on what waits there, again and again."""


class LaneMove(NamedTuple):
    """A job, its newest hand-over, and the priority that it is to have."""

    job_id: JobId
    dispatch: int
    priority: Priority


class MoveResult(StrEnum):
    """Result of a move.

    Values:
      MOVED: It waits in the lane of its new priority, at the place of its age.
      RUNNING: Its next attempt has the new priority.
      KNOWN: It had it already.
      FULL: The lane has no room: it stays where it is until reconcile finds some.
      UNKNOWN: Redis does not have this hand-over.
      UNREADABLE: What Redis holds of it cannot be read.
      FAILED, WITHDRAWN: This hand-over has ended so; the database owns the job.
      SUCCEEDED, CANCELLED, EXPIRED, POISONED, DEAD: The job has ended so.
    """

    MOVED = "moved"
    RUNNING = "running"
    KNOWN = "known"
    FULL = "full"
    UNKNOWN = "unknown"
    UNREADABLE = "unreadable"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"
    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    POISONED = "poisoned"
    DEAD = "dead"


def last_told(state: str, asked: str, priority: str, following: str) -> str:
    """Which priority Redis was told of last, as far as what it does follows it: empty where an older version
    placed the job.

    A program of an older version hands a job back to the lane that it had come from, whatever was to follow.

    Args:
      state, asked, priority, following: What the job's hash has; ``following`` in the field ``next``.
    """
    return priority if state == JobState.PLACED and following else asked


ENDED = frozenset(
    {
        MoveResult.SUCCEEDED,
        MoveResult.CANCELLED,
        MoveResult.EXPIRED,
        MoveResult.POISONED,
        MoveResult.DEAD,
    }
)
"""Results that say of the job that it has ended, whatever the database has settled."""
