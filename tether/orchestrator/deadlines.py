"""Expires jobs at their deadline, or unbegun, and completes requests that their requester did not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Self

from tether.ids import JobId
from tether.jobs import JobState
from tether.loops import IDLE
from tether.orchestrator.context import LoopContext
from tether.orchestrator.set_aside import FailedEntries
from tether.scheduling.cancellation import Cancellation
from tether.store.beginnings import unbegun
from tether.store.end_requests import Request, RequestedRow, overdue, requested
from tether.store.store import Store
from tether.telemetry.logs import get_logger

BATCH = 256

GRACE_MS = 2_000
"""How long whoever asked for a job's end has for carrying it out."""


class EndOverdue:
    """Looks for jobs past their deadline, drawn or not, for those past ``expires_at`` that no worker has
    begun, and for old requests.

    Jobs that cannot end yet hold up nobody: the next look goes on behind them, until one came to the end.
    """

    def __init__(self, store: Store, ending: Cancellation, *, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._ending = ending
        self._now_ms = now_ms
        self._late_passed_over = 0
        self._asked_passed_over = 0
        self._unbegun_passed_over = 0
        self._failed: FailedEntries[JobId] = FailedEntries("deadlines", get_logger("tether.orchestrator"))

    @classmethod
    def make(cls, context: LoopContext) -> Self:
        return cls(context.plane.store, context.plane.ending, now_ms=context.now_ms)

    def __call__(self) -> float:
        now_ms = self._now_ms()
        late = self._store.read(overdue, now_ms, BATCH, self._late_passed_over)
        ended = self._expire(self._due(late, now_ms), now_ms)
        self._late_passed_over += len(late) - ended
        if len(late) < BATCH:
            self._late_passed_over = 0
        waiting = self._store.read(unbegun, now_ms, BATCH, self._unbegun_passed_over)
        ended = self._expire_unbegun(self._due(waiting, now_ms), now_ms)
        self._unbegun_passed_over += len(waiting) - ended
        if len(waiting) < BATCH:
            self._unbegun_passed_over = 0
        asked = self._store.read(requested, now_ms - GRACE_MS, BATCH, self._asked_passed_over)
        ended = self._carry_out(self._due(asked, now_ms), now_ms)
        self._asked_passed_over += len(asked) - ended
        if len(asked) < BATCH:
            self._asked_passed_over = 0
        return 0 if BATCH in (len(late), len(waiting)) else IDLE

    def _due(self, rows: list[RequestedRow], now_ms: int) -> list[RequestedRow]:
        return [row for row in rows if self._failed.is_due(row.job_id, now_ms)]

    def _expire(self, rows: list[RequestedRow], now_ms: int) -> int:
        """Return for how many the request stands now."""
        requests = [Request(None, row.job_id, JobState.EXPIRED, now_ms) for row in rows]
        answers = self._ending.end(requests)
        return self._note(zip((row.job_id for row in rows), answers, strict=True), now_ms)

    def _expire_unbegun(self, rows: list[RequestedRow], now_ms: int) -> int:
        """Return of how many nothing is left to be done here."""
        return self._note(self._ending.expire_unbegun(rows, now_ms).items(), now_ms)

    def _carry_out(self, rows: list[RequestedRow], now_ms: int) -> int:
        """Return how many have ended."""
        return self._note(self._ending.carry_out(rows, now_ms).items(), now_ms)

    def _note(self, answers: Iterable[tuple[JobId, JobState | Exception | None]], now_ms: int) -> int:
        handled = 0
        for job_id, answer in answers:
            if isinstance(answer, Exception):
                self._failed.fail(job_id, answer, now_ms, job=job_id)
            else:
                self._failed.succeed(job_id, job=job_id)
                handled += 1
        return handled
