"""What comes of requests for the end of jobs."""

from __future__ import annotations

from enum import StrEnum


class CancelResult(StrEnum):
    """Result of a cancellation request.

    Values:
      CLOSED: It never runs again, and there will be no outcome.
      RUNNING: Its worker will receive the request; there will be an outcome.
      FAILED, WITHDRAWN: Its dispatch had already ended so; the database owns it.
      SUCCEEDED, CANCELLED, EXPIRED, POISONED, DEAD: It had already ended so; its outcome is unchanged.
    """

    CLOSED = "closed"
    RUNNING = "running"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"
    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    POISONED = "poisoned"
    DEAD = "dead"
