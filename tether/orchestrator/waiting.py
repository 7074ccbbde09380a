"""Jobs that wait in the database, to be tried again or for a pool that can serve them: placed when due."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from tether.orchestrator.loop import until
from tether.scheduling.dispatches import dispatch_of
from tether.scheduling.reservations import ReservationManager
from tether.store.placements import (
    Placement,
    Postponement,
    WaitingJob,
    next_waiting,
    postpone,
    recall_parked,
    replace,
    waiting,
)
from tether.store.store import Store

BATCH = 256
PARKED_MS = 10_000
"""When a job that no pool can serve is looked at again, if the fleet does not change before."""


class ChoosesPools(Protocol):
    """The scheduler, as far as it is needed here."""

    def choose_pools(self, jobs: Sequence[WaitingJob]) -> list[str | None]:
        """A pool for each job, or None where none can serve it now."""


class PlaceWaiting:
    """Raises the dispatch of jobs that are due and have a pool, then hands them over."""

    name = "waiting"

    def __init__(
        self,
        store: Store,
        scheduler: ChoosesPools,
        reservations: ReservationManager,
        *,
        interval: float,
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._scheduler = scheduler
        self._reservations = reservations
        self._interval = interval
        self._now_ms = now_ms
        self._has_fleet_changed = True

    def recall(self) -> None:
        """The fleet has changed: look again at the jobs that no pool could serve."""
        self._has_fleet_changed = True

    def __call__(self) -> float:
        now_ms = self._now_ms()
        if self._has_fleet_changed:
            self._has_fleet_changed = False
            self._store.write_alone(recall_parked, now_ms).result()
        jobs = self._store.read(waiting, now_ms, BATCH)
        pools = self._scheduler.choose_pools(jobs)
        chosen = [(job, pool) for job, pool in zip(jobs, pools, strict=True) if pool is not None]
        placements = [Placement(job.job_id, job.dispatch, pool, now_ms) for job, pool in chosen]
        raised = [future.result() for future in self._store.write_many(replace, placements)]
        self._reservations.hand_over(
            [
                dispatch_of(job, dispatch, pool)
                for (job, pool), dispatch in zip(chosen, raised, strict=True)
                if dispatch is not None
            ]
        )
        # What no pool can serve now holds up nobody else.
        later = now_ms + PARKED_MS
        postponed = [
            Postponement(job.job_id, job.dispatch, later, now_ms)
            for job, pool in zip(jobs, pools, strict=True)
            if pool is None
        ]
        for future in self._store.write_many(postpone, postponed):
            future.result()
        if len(jobs) == BATCH:
            return 0
        return until(self._store.read(next_waiting), self._now_ms(), self._interval)
