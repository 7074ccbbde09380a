"""Lets dead letters expire that nobody retried or purged in time. None goes unsaid: each batch is logged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from tether.dead_letters import LetterState
from tether.ids import JobId
from tether.loops import IDLE
from tether.orchestrator.context import LoopContext
from tether.orchestrator.set_aside import FailedEntries
from tether.store.letter_changes import LetterClosing, close_letters, old_letters
from tether.store.store import Store
from tether.telemetry import metrics
from tether.telemetry.logs import get_logger

LETTER_EXPIRY = "letter-expiry"
"""The name of the loop."""

EXPIRY_BATCH = 64
"""Letters that expire in one transaction."""

EXPIRY_PAUSE_SECONDS = 0.05
"""Between two transactions. Whoever writes in another process to the same SQLite file gets in then."""


class ExpireLetters:
    """Closes open dead letters of a certain age, the oldest first."""

    def __init__(self, store: Store, *, retention_ms: int | None, now_ms: Callable[[], int]) -> None:
        """
        Args:
          retention_ms: Age at which letters expire; None is never.
        """
        self._store = store
        self._retention_ms = retention_ms
        self._now_ms = now_ms
        self._passed_over = 0
        self._log = get_logger("tether.orchestrator")
        self._failed: FailedEntries[JobId] = FailedEntries(LETTER_EXPIRY, self._log)

    @classmethod
    def make(cls, context: LoopContext) -> Self:
        plane = context.plane
        retention_ms = plane.settings.jobs.dead_letter_retention
        return cls(plane.store, retention_ms=retention_ms, now_ms=context.now_ms)

    def __call__(self) -> float:
        if self._retention_ms is None:
            return IDLE
        now_ms = self._now_ms()
        older_than_ms = now_ms - self._retention_ms
        places = self._store.read(old_letters, older_than_ms, EXPIRY_BATCH, self._passed_over)
        due = [place.job_id for place in places if self._failed.is_due(place.job_id, now_ms)]
        closings = [LetterClosing(job_id, LetterState.EXPIRED, now_ms) for job_id in due]
        expired = closed = 0
        for job_id, answer in zip(due, self._store.write_each(close_letters, closings), strict=True):
            if isinstance(answer, Exception):
                self._failed.fail(job_id, answer, now_ms, job=job_id)
            else:
                self._failed.succeed(job_id, job=job_id)
                # Others may have retried or purged it meanwhile.
                expired += answer
                closed += 1
        if expired:
            metrics.LETTERS_EXPIRED.inc(expired)
            self._log.warning("Dead letters have expired: their retry tokens make no jobs.", count=expired)
        if len(places) < EXPIRY_BATCH:
            self._passed_over = 0
            return IDLE
        # What cannot be closed is passed over until the last was looked at.
        self._passed_over += len(places) - closed
        return EXPIRY_PAUSE_SECONDS
