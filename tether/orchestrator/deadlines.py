"""Expires jobs at their deadline, or unbegun, and completes requests that their requester did not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

from sqlalchemy import Connection

from tether.ids import JobId
from tether.jobs import JobState
from tether.loops import IDLE
from tether.orchestrator.context import LoopContext
from tether.orchestrator.set_aside import FailedEntries
from tether.scheduling.cancellation import Cancellation
from tether.store.beginnings import unbegun, unbegun_rows
from tether.store.end_requests import Request, overdue, requested, requested_rows
from tether.store.store import Store
from tether.telemetry.logs import get_logger

BATCH = 256

GRACE_MS = 2_000
"""How long whoever asked for a job's end has for carrying it out."""


_Answers = Iterable[tuple[JobId, JobState | Exception | None]]


@dataclass
class _Kind:
    """Jobs to end for one reason.

    Attributes:
      find: Returns the first of them, but so many.
      end: Ends some of them, and returns the state or the error of each that is done with, or has failed.
      grace_ms: For how long they are left alone.
      passed_over: How many could not end yet.
    """

    find: Callable[[Connection, int, int, int], list[JobId]]
    end: Callable[[list[JobId], int], _Answers]
    grace_ms: int = 0
    passed_over: int = 0


class EndOverdue:
    """Looks for jobs past their deadline, drawn or not, for those past ``expires_at`` that no worker has
    begun, and for old requests.

    Jobs that cannot end yet hold up nobody: the next look goes on behind them, until one came to the end.
    Neither do rows that cannot be read.
    """

    def __init__(self, store: Store, ending: Cancellation, *, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._ending = ending
        self._now_ms = now_ms
        self._late = _Kind(overdue, self._expire)
        self._unbegun = _Kind(unbegun, self._expire_unbegun)
        self._asked = _Kind(requested, self._carry_out, GRACE_MS)
        self._failed: FailedEntries[JobId] = FailedEntries("deadlines", get_logger("tether.orchestrator"))

    @classmethod
    def make(cls, context: LoopContext) -> Self:
        return cls(context.plane.store, context.plane.ending, now_ms=context.now_ms)

    def __call__(self) -> float:
        now_ms = self._now_ms()
        are_more = [self._look(kind, now_ms) for kind in (self._late, self._unbegun)]
        self._look(self._asked, now_ms)
        return 0 if any(are_more) else IDLE

    def _look(self, kind: _Kind, now_ms: int) -> bool:
        """Return whether there may be more."""
        job_ids = self._store.read(kind.find, now_ms - kind.grace_ms, BATCH, kind.passed_over)
        due = [job_id for job_id in job_ids if self._failed.is_due(job_id, now_ms)]
        handled = self._note(kind.end(due, now_ms), now_ms)
        is_full = len(job_ids) == BATCH
        kind.passed_over = kind.passed_over + len(job_ids) - handled if is_full else 0
        return is_full

    def _expire(self, job_ids: list[JobId], now_ms: int) -> _Answers:
        """For these the request stands now."""
        requests = [Request(None, job_id, JobState.EXPIRED, now_ms) for job_id in job_ids]
        return zip(job_ids, self._ending.end(requests), strict=True)

    def _expire_unbegun(self, job_ids: list[JobId], now_ms: int) -> _Answers:
        """Of these nothing is left to be done here."""
        rows, errors = self._store.read_each(unbegun_rows, job_ids)
        return [*errors.items(), *self._ending.expire_unbegun(rows, now_ms).items()]

    def _carry_out(self, job_ids: list[JobId], now_ms: int) -> _Answers:
        """These have ended."""
        rows, errors = self._store.read_each(requested_rows, job_ids)
        return [*errors.items(), *self._ending.carry_out(rows, now_ms).items()]

    def _note(self, answers: _Answers, now_ms: int) -> int:
        handled = 0
        for job_id, answer in answers:
            if isinstance(answer, Exception):
                self._failed.fail(job_id, answer, now_ms, job=job_id)
            else:
                self._failed.succeed(job_id, job=job_id)
                handled += 1
        return handled
