"""Jobs that would be done much sooner in another pool are given back by theirs, and placed again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol, Self

import redis

from tether.broker.pools.pools import Pools
from tether.broker.pools.waiting_lanes import (
    LanePlace,
    WaitingDispatch,
    tenants_waiting,
    waiting_dispatches,
)
from tether.broker.redis.connections import raise_if_refused
from tether.clocks import monotonic_ms
from tether.envelopes import Placeable
from tether.ids import JobId, PoolName, TenantId
from tether.jobs import Priority
from tether.loops import IDLE
from tether.orchestrator.context import LoopContext
from tether.orchestrator.set_aside import FailedEntries
from tether.scheduling.relief import CrowdWatch, MoveRule
from tether.store.store import Store
from tether.store.waiting_jobs import needed_of_jobs
from tether.telemetry import metrics
from tether.telemetry.logs import get_logger

LONG_WAITS = "long-waits"
"""The name of the loop."""

MAX_MOVED = 64
"""Jobs of a pool that a step moves, at most."""

LANES = 16
"""Lanes of a class that are read together."""

MAX_PAGES = 8
"""Pages of a pool's jobs that a step looks at, where none of the first may go elsewhere."""


class KnowsCrowds(Protocol):
    """The scheduler, as far as it is needed here."""

    def crowded_pools(self, rule: MoveRule) -> dict[PoolName, int]:
        """The pools whose last jobs would be done much sooner elsewhere, and how many are to be moved."""

    def done_sooner_elsewhere(
        self, pool: PoolName, jobs: Sequence[Placeable], rule: MoveRule
    ) -> Collection[JobId]:
        """Those of these jobs of a pool that would be done much sooner in another that meets their needs."""


class MoveLongWaits:
    """Watches pools, and withdraws the last jobs of those that are crowded: the loop of waiting jobs places
    them again.

    A job that runs, that has been moved often enough, or that no other pool may have, stays.
    """

    def __init__(
        self,
        store: Store,
        pools: Pools,
        scheduler: KnowsCrowds,
        *,
        rule: MoveRule,
        now_ms: Callable[[], int],
        monotonic: Callable[[], int] = monotonic_ms,
    ) -> None:
        """
        Args:
          now_ms: Milliseconds since the epoch.
          monotonic: Milliseconds of a monotonic clock.
        """
        self._store = store
        self._pools = pools
        self._scheduler = scheduler
        self._rule = rule
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._watch = CrowdWatch()
        self._pages: dict[PoolName, Iterator[list[WaitingDispatch]]] = {}
        self._log = get_logger("tether.orchestrator")
        self._failed: FailedEntries[JobId] = FailedEntries(LONG_WAITS, self._log)

    @classmethod
    def make(cls, context: LoopContext) -> Self:
        plane, scheduling = context.plane, context.plane.settings.scheduling
        rule = MoveRule(scheduling.move_factor, scheduling.move_gain / 1000, scheduling.moves)
        return cls(plane.store, plane.pools, plane.waiting_placement, rule=rule, now_ms=context.now_ms)

    def __call__(self) -> float:
        found = self._scheduler.crowded_pools(self._rule) if self._rule.moves else {}
        self._watch, due = self._watch.look(found, self._monotonic())
        self._pages = {pool: pages for pool, pages in self._pages.items() if pool in found}
        for pool, count in due.items():
            moved = self._move(pool, min(count, MAX_MOVED))
            metrics.JOBS_MOVED.inc(moved)
            if moved:
                self._log.info(
                    "Jobs that another pool would do much sooner are placed again.", pool=pool, jobs=moved
                )
        return IDLE

    def lapse(self) -> None:
        """Another orchestrator watches from here on, and this one begins anew if it does again."""
        self._watch = CrowdWatch()
        self._pages.clear()

    def _move(self, pool: PoolName, count: int) -> int:
        """Withdraw some of the last jobs of a pool. Return how many.

        Where none of a page may go elsewhere, the next looks go on behind it: those that stay hide no others.
        """
        for _ in range(MAX_PAGES):
            pages = self._pages.setdefault(pool, last_pages(self._pools, pool))
            page = next(pages, None)
            if page is None:
                del self._pages[pool]
                return 0
            for end in range(len(page), 0, -count):
                if moved := self._move_of(pool, page[max(0, end - count) : end]):
                    # What is last now is looked at first the next time.
                    del self._pages[pool]
                    return moved
        return 0

    def _move_of(self, pool: PoolName, waiting: Sequence[WaitingDispatch]) -> int:
        rows, errors = self._store.read_each(needed_of_jobs, [each.job_id for each in waiting])
        for job_id, error in errors.items():
            self._failed.fail(job_id, error, self._now_ms(), job=job_id)
        may_move = [
            row.job for row in rows if not row.has_request and row.dispatch - row.attempts <= self._rule.moves
        ]
        chosen = set(self._scheduler.done_sooner_elsewhere(pool, may_move, self._rule))
        leaving = [each for each in waiting if each.job_id in chosen]
        answers = self._pools.withdraw_many(leaving, running=False)
        for each, answer in zip(leaving, answers, strict=True):
            if isinstance(answer, Exception):
                self._failed.fail(each.job_id, answer, self._now_ms(), job=each.job_id)
        return answers.count("withdrawn")


def last_pages(pools: Pools, pool: PoolName) -> Iterator[list[WaitingDispatch]]:
    """The jobs that wait in a pool, from the ends of its lanes on, the least urgent class first. A page may
    be empty. Suspects, which wait to run alone, are left out."""
    for priority in (Priority.BATCH, Priority.STANDARD, Priority.INTERACTIVE):
        start = 0
        while tenants := _tenants(pools, pool, priority, start):
            size = max(1, MAX_MOVED // len(tenants))
            behind = 0
            while True:
                lanes = [LanePlace(pool, priority, tenant, -behind - size) for tenant in tenants]
                page = waiting_dispatches(pools.client, pools.keys, lanes, size)
                yield page
                if not page:
                    break
                behind += size
            start += LANES


def _tenants(pools: Pools, pool: PoolName, priority: Priority, start: int) -> list[TenantId]:
    try:
        return tenants_waiting(pools.client, pools.keys, pool, priority, start, LANES)
    except redis.ResponseError as error:
        raise_if_refused(error)
        return []
