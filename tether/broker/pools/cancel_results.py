"""What comes of requests for the end of jobs."""

from __future__ import annotations

from enum import StrEnum


class CancelResult(StrEnum):
    """Result of a cancellation request.

    Values:
      CLOSED: It never runs again, and there will be no outcome.
      RUNNING: Its worker will receive the request; there will be an outcome.
      BEGUN: It has begun, or may have: jobs that have not were asked for.
      UNKNOWN: Redis cannot say whether it has begun: it does not have the job, or what it has of it is
        damaged.
      FAILED, WITHDRAWN: Its dispatch had already ended so; the database owns it.
      SUCCEEDED, CANCELLED, EXPIRED, POISONED, DEAD: It had already ended so; its outcome is unchanged.
    """

    CLOSED = "closed"
    RUNNING = "running"
    BEGUN = "begun"
    UNKNOWN = "unknown"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"
    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    POISONED = "poisoned"
    DEAD = "dead"
