"""Ends jobs at their deadline, and carries out requests that whoever made them did not see through."""

from __future__ import annotations

from collections.abc import Callable

from tether.jobs import JobState
from tether.scheduling.endings import Ending
from tether.store.requests import Request, overdue, requested
from tether.store.store import Store

BATCH = 256

GRACE_MS = 2_000
"""How long whoever asked for a job's end has for carrying it out."""


class EndOverdue:
    """Looks for jobs past their deadline, drawn or not, and for old requests."""

    name = "deadlines"

    def __init__(self, store: Store, ending: Ending, *, interval: float, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._ending = ending
        self._interval = interval
        self._now_ms = now_ms
        self._passed_over = 0

    def __call__(self) -> float:
        now_ms = self._now_ms()
        late = self._store.read(overdue, now_ms, BATCH)
        self._ending.end([Request(None, row.job_id, JobState.EXPIRED, now_ms) for row in late])
        asked = self._store.read(requested, now_ms - GRACE_MS, BATCH, self._passed_over)
        # Those that cannot end yet hold up nobody: the next look goes on behind them.
        self._passed_over = self._passed_over + BATCH if len(asked) == BATCH else 0
        self._ending.carry_out(asked, now_ms)
        return 0 if len(late) == BATCH else self._interval
