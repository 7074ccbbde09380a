"""Jobs that wait in the database, to be tried again or for a pool that can serve them: placed when due."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, Self

from tether.broker.pools.dispatches import Dispatch
from tether.discovery.fleet.fleet import Fleet
from tether.ids import JobId, PoolName, TenantId
from tether.jobs import Priority
from tether.loops import IDLE, seconds_until
from tether.orchestrator.context import LoopContext
from tether.orchestrator.postponements import MAX_POSTPONED_MS, Postponements
from tether.orchestrator.set_aside import FailedEntries
from tether.orchestrator.waiting_turns import NEVER_LATE, LateStandard, NextJobs, WaitingTurns
from tether.scheduling.kept_decisions import ChosenPools
from tether.scheduling.reservations import ClaimedJob, Hold, ReservationManager
from tether.store.placements import NotPlaced
from tether.store.rows import UnreadableRow
from tether.store.store import Store
from tether.store.waiting_jobs import (
    DelayedJob,
    DueRetry,
    KeptModel,
    Postponement,
    WaitingJob,
    delay_waiting,
    due_retries,
    due_retry_ids,
    models_with_needs,
    next_waiting,
    postpone,
    waiting,
    waiting_ids,
)
from tether.store.waiting_tenants import PostponedJobs, postponed_ids
from tether.telemetry.logs import get_logger

WAITING = "waiting"
"""The name of the loop: others wake it."""

BATCH = 256
SHORT_SECONDS = 0.25
"""Between two looks while jobs are due for which no pool has room, unless jobs end in this process."""

SHUT_MS = 1_000
"""When a job is looked at again that a breaker keeps back, and that may soon have its turn to try."""

MAX_AT_HAND = 8
"""Such jobs of each step, each of another tenant. The others wait as whatever finds no pool."""

RECALLED = 1_000
"""Jobs of a tenant that were postponed and are made due at once, in one step."""


class ServesModels(Protocol):
    """The scheduler, as far as it is needed here."""

    def served_models(self) -> list[KeptModel]:
        """The models that live workers serve now, as rows of jobs keep them."""

    def served_needs(self, with_needs: Callable[[Collection[str]], Collection[str]]) -> list[KeptModel]:
        """The models that live workers serve to jobs with needs, once for all needs that a pool meets.

        Args:
          with_needs: Returns those of these models for which such jobs wait.
        """

    def read_depths(self) -> None:
        """Read anew how many jobs pools have."""

    def room_for(self, kept: KeptModel) -> int:
        """How many more jobs the pools take that serve these."""

    def rooms_of_tenants(
        self, kept: KeptModel, tenants: Collection[TenantId], priority: Priority
    ) -> Mapping[TenantId, int]:
        """How many more jobs of a class these pools take of each tenant."""

    def choose_pools(self, jobs: Sequence[WaitingJob]) -> list[ChosenPools | Exception]:
        """A choice for each job; an error where choosing failed."""


class PlaceWaiting:
    """Raises the dispatch of jobs that are due and have a pool, then hands them over.

    Only jobs are read whose models, and whose needs of a pool, are served now by a pool that takes more jobs.
    Where not all can be placed, each tenant gets its turn. A retry that is due and has no
    pool is parked, once.
    """

    def __init__(
        self,
        store: Store,
        scheduler: ServesModels,
        reservations: ReservationManager,
        *,
        now_ms: Callable[[], int],
        short_of_room: threading.Event | None = None,
        late: LateStandard = NEVER_LATE,
    ) -> None:
        """
        Args:
          now_ms: Milliseconds since the epoch.
          short_of_room: Set while jobs are due for which no pool has room.
          late: When standard jobs no longer wait for all interactive ones.
        """
        self._store = store
        self._scheduler = scheduler
        self._reservations = reservations
        self._now_ms = now_ms
        self._short_of_room = short_of_room or threading.Event()
        self._short: set[KeptModel] = set()
        self._turns = WaitingTurns(store, scheduler.rooms_of_tenants, late)
        self._postponements = Postponements()
        self._served: Mapping[PoolName, int] = {}
        self._failed: FailedEntries[JobId] = FailedEntries(WAITING, get_logger("tether.orchestrator"))

    @classmethod
    def make(cls, context: LoopContext) -> Self:
        plane = context.plane
        scheduling = plane.settings.scheduling
        step = cls(
            plane.store,
            plane.waiting_placement,
            plane.reservations,
            now_ms=context.now_ms,
            short_of_room=context.short_of_room,
            late=LateStandard(scheduling.standard_age, scheduling.standard_share),
        )

        def on_change(fleet: Fleet) -> None:
            if step.sees_more(fleet.served):
                context.wake(WAITING)

        context.closing.callback(plane.fleet.on_change(on_change))
        return step

    def sees_more(self, served: Mapping[PoolName, int]) -> bool:
        """The fleet has changed: whether it serves pools that it did not serve before.

        Args:
          served: What the fleet serves now.
        """
        # Most changes are heartbeats: the mapping is the same, and there is nothing to do.
        former, self._served = self._served, served
        return served is not former and bool(served.keys() - former.keys())

    def __call__(self) -> float:
        now_ms = self._now_ms()
        served = [*self._scheduler.served_models(), *self._served_needs()]
        due_at = self._store.read(next_waiting, served)
        # All models in each step, a batch of each: a long queue for one holds up no other.
        due = [kept for kept, first in due_at.items() if first <= now_ms]
        if due:
            self._scheduler.read_depths()
        self._short &= set(due)
        batches = [self._place(kept, now_ms) for kept in due]
        parked = self._park({kept[:3]: kept.vram for kept in served}, now_ms)
        if self._short:
            self._short_of_room.set()
        else:
            self._short_of_room.clear()
        if any(batches) or parked == BATCH:
            return 0
        if self._short:
            return SHORT_SECONDS
        if batches:
            # All that is due failed, and cannot even be made due later.
            return IDLE
        return seconds_until(min(due_at.values(), default=None), self._now_ms())

    def _served_needs(self) -> list[KeptModel]:
        """What is served to jobs with needs, as far as there are such jobs: mostly there are none."""
        return self._scheduler.served_needs(lambda models: self._store.read(models_with_needs, models))

    def _place(self, kept: KeptModel, now_ms: int) -> int:
        """Place a batch of the jobs that wait for a model. Return how many were due and are no longer."""
        job_ids, late = self._next(kept, now_ms)
        rows, errors = self._store.read_each(waiting, job_ids)
        turns = {job_id: turn for turn, job_id in enumerate(job_ids)}
        jobs = [
            replace(row, is_late=True) if row.job_id in late else row
            for row in rows
            if isinstance(row, WaitingJob)
        ]
        jobs.sort(key=lambda job: turns[job.job_id])
        failed = list(errors.items())
        failed += [(row.job_id, ValueError(row.reason)) for row in rows if isinstance(row, UnreadableRow)]
        chosen: list[tuple[WaitingJob, ClaimedJob]] = []
        unserved: list[tuple[WaitingJob, ChosenPools]] = []
        without_room = 0
        for job, choice in zip(jobs, self._scheduler.choose_pools(jobs), strict=True):
            if isinstance(choice, Exception):
                failed.append((job.job_id, choice))
            elif choice.claims:
                claimed = ClaimedJob(job.job_id, job.dispatch, choice.claims, now_ms, choice.decision)
                chosen.append((job, claimed))
            elif choice.is_full:
                without_room += 1
            else:
                # What no pool can serve now holds up nobody else.
                unserved.append((job, choice))
        dispatches: list[Dispatch] = []
        results = self._reservations.claim([claimed for _, claimed in chosen])
        for (job, _), result in zip(chosen, results, strict=True):
            if isinstance(result, Exception):
                failed.append((job.job_id, result))
            elif isinstance(result, Hold):
                self._failed.succeed(job.job_id, job=job.job_id)
                dispatches.append(Dispatch.of(job.job, result.dispatch, result.pool))
            elif result is NotPlaced.NO_ROOM:
                without_room += 1
        self._reservations.hand_over(dispatches)
        failed += self._postpone(self._postponed(kept, unserved, now_ms))
        if without_room:
            self._short.add(kept)
        self._recall(kept, {job.job.tenant_id for job, _ in chosen}, now_ms)
        return len(job_ids) - without_room - self._delay(failed, now_ms)

    def _next(self, kept: KeptModel, now_ms: int) -> NextJobs:
        """The jobs that are placed next."""
        was_short = kept in self._short
        self._short.discard(kept)
        limit = min(BATCH, self._scheduler.room_for(kept))
        if limit <= 0:
            self._short.add(kept)
            return NextJobs([])
        if not was_short:
            job_ids = self._store.read(waiting_ids, kept, now_ms, min(BATCH, limit + 1))
            if len(job_ids) < min(BATCH, limit + 1):
                return NextJobs(job_ids)
        next_jobs = self._turns.read(kept, now_ms, limit)
        if len(next_jobs.ids) < limit:
            # There may be more, of tenants for which there is no room.
            self._short.add(kept)
        return next_jobs

    def _park(self, served: Mapping[tuple[str, str, str], int], now_ms: int) -> int:
        """Park retries that are due and that nobody serves. Return how many retries were due.

        Args:
          served: The GPU memory that jobs may need at most, by model, version and needs.
        """
        job_ids = self._store.read(due_retry_ids, now_ms, BATCH)
        retries, errors = self._store.read_each(due_retries, job_ids)
        failed = list(errors.items())
        failed += [(row.job_id, ValueError(row.reason)) for row in retries if isinstance(row, UnreadableRow)]
        failed += self._postpone(
            [
                Postponement(retry.job_id, retry.dispatch, retry.due_at, now_ms)
                for retry in retries
                if isinstance(retry, DueRetry) and served.get(retry.kept[:3], -1) < retry.kept.vram
            ]
        )
        return len(job_ids) - self._delay(failed, now_ms)

    def _postponed(
        self, kept: KeptModel, unserved: Sequence[tuple[WaitingJob, ChosenPools]], now_ms: int
    ) -> list[Postponement]:
        """When these jobs are due again. Of each tenant whose jobs a breaker keeps back, the one that has
        failed the least is at hand for its turn to try."""
        at_hand: set[TenantId] = set()
        found: list[Postponement] = []
        for job, choice in sorted(unserved, key=lambda one: one[0].attempts):
            tenant = job.job.tenant_id
            if choice.is_shut and tenant not in at_hand and len(at_hand) < MAX_AT_HAND:
                at_hand.add(tenant)
                due_at = now_ms + SHUT_MS
            else:
                due_at = self._postponements.due_at(kept, tenant, now_ms)
            found.append(Postponement(job.job_id, job.dispatch, due_at, now_ms, choice.decision))
        return found

    def _postpone(self, postponements: list[Postponement]) -> list[tuple[JobId, Exception]]:
        """Return those that failed, with their errors."""
        answers = self._store.write_each(postpone, postponements)
        return [
            (item.job_id, answer)
            for item, answer in zip(postponements, answers, strict=True)
            if isinstance(answer, Exception)
        ]

    def _recall(self, kept: KeptModel, tenants: Collection[TenantId], now_ms: int) -> None:
        """A pool was found for these tenants: what was postponed since there was none is due now."""
        for tenant, before_ms in self._postponements.recalls(kept, tenants, now_ms):
            wanted = PostponedJobs(kept, tenant, before_ms, now_ms, now_ms + MAX_POSTPONED_MS)
            job_ids = self._store.read(postponed_ids, wanted, RECALLED)
            self._store.write_each(delay_waiting, [DelayedJob(job_id, now_ms) for job_id in job_ids])
            if len(job_ids) < RECALLED:
                self._postponements.has_recalled(kept, tenant, now_ms)

    def _delay(self, failed: list[tuple[JobId, Exception]], now_ms: int) -> int:
        """Set jobs aside: they are due again later, behind others. Return how many could not be delayed."""
        delayed = [
            DelayedJob(job_id, self._failed.fail(job_id, error, now_ms, job=job_id).due_at)
            for job_id, error in failed
        ]
        return sum(isinstance(answer, Exception) for answer in self._store.write_each(delay_waiting, delayed))
