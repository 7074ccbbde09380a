"""Pools whose breaker is open give back what waits there: to another pool, or to wait in the database."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Protocol, Self

from tether.broker.pools.pools import Pools
from tether.broker.pools.waiting_lanes import WaitingDispatch
from tether.broker.pools.withdrawn_lanes import WithdrawnPage, pages_withdrawn
from tether.envelopes import Placeable
from tether.ids import JobId, PoolName
from tether.loops import IDLE
from tether.orchestrator.context import LoopContext
from tether.orchestrator.owed_lanes import ParkOwedLanes
from tether.orchestrator.set_aside import FailedEntries
from tether.orchestrator.waiting import WAITING
from tether.scheduling.breaker import Breaker, TripCause
from tether.scheduling.known_breakers import KnownBreakers
from tether.scheduling.shared_breakers import SharedBreakers
from tether.store.holds import depths
from tether.store.store import Store
from tether.store.waiting_jobs import needed_of_jobs
from tether.telemetry import metrics
from tether.telemetry.logs import get_logger

SHUT_POOLS = "shut-pools"
"""The name of the loop."""

MAX_SHUT_PAGES = 4
"""Pages of jobs that a step withdraws, of such pools in turn."""

MAX_SHUT_LOOKS = 64
"""Pages that it looks for, at most."""

PAUSE_SECONDS = 0.05
"""Between two steps while there is something to give back."""


class JudgesMoves(Protocol):
    """The scheduler, as far as it is needed here."""

    def may_go_elsewhere(self, pool: PoolName, jobs: Sequence[Placeable]) -> Collection[JobId]:
        """Those of a pool's jobs that another pool can serve."""


class GiveBackShut:
    """One look at the pools with jobs whose breaker is not closed. What runs there goes on.

    Where attempts failed, all that waits is withdrawn: whoever drew it would fail it. What no other pool can
    serve waits in the database, and one of these jobs is the next to try. Where they were only slow, what no
    other pool can serve stays: slow is better than not at all.
    """

    def __init__(
        self,
        store: Store,
        pools: Pools,
        shared: SharedBreakers,
        known: KnownBreakers,
        *,
        moves: JudgesMoves,
        now_ms: Callable[[], int],
        on_parked: Callable[[], None] = lambda: None,
        watches: Callable[[PoolName], bool] = lambda pool: True,
    ) -> None:
        """
        Args:
          moves: Says which jobs another pool can serve.
          now_ms: Milliseconds since the epoch.
          on_parked: Called when jobs were parked.
          watches: Whether this process knows the workers of a pool.
        """
        self._store = store
        self._pools = pools
        self._shared = shared
        self._known = known
        self._moves = moves
        self._now_ms = now_ms
        self._on_parked = on_parked
        self._watches = watches
        self._passes: deque[tuple[PoolName, Iterator[WithdrawnPage]]] = deque()
        self._shut: Mapping[PoolName, Breaker] = {}
        log = get_logger("tether.orchestrator")
        self._failed: FailedEntries[JobId] = FailedEntries(SHUT_POOLS, log)
        self._owed = ParkOwedLanes(store, self._failed)

    @classmethod
    def make(cls, context: LoopContext) -> Self:
        plane = context.plane
        return cls(
            plane.store,
            plane.pools,
            plane.breakers,
            plane.known_breakers,
            moves=plane.waiting_placement,
            now_ms=context.now_ms,
            on_parked=lambda: context.wake(WAITING),
            watches=plane.watches,
        )

    def __call__(self) -> float:
        shut = self._shut = self._shut_pools()
        self._passes = deque(each for each in self._passes if each[0] in shut)
        if not shut:
            return IDLE
        now_ms = self._now_ms()
        parked = self._owed.park(dict.fromkeys(shut), now_ms, self._leaving)
        withdrawn = self._withdraw(now_ms)
        metrics.JOBS_SHUT_OUT.inc(parked + withdrawn)
        if parked:
            self._on_parked()
        return PAUSE_SECONDS if parked or withdrawn or self._passes else IDLE

    def lapse(self) -> None:
        """Another orchestrator looks from here on."""
        self._passes.clear()
        self._shut = {}

    def _shut_pools(self) -> dict[PoolName, Breaker]:
        breakers = self._known.shut()
        if not breakers:
            return {}
        jobs = self._store.read(depths)
        names = self._pools.named() | {name for name, count in jobs.items() if count > 0}
        return {
            pool: breakers[name]
            for pool in sorted(names)
            if self._watches(pool) and (name := self._shared.name_of(pool)) in breakers and name is not None
        }

    def _withdraw(self, now_ms: int) -> int:
        passing = {name for name, _ in self._passes}
        self._passes.extend((name, self._pages_of(name)) for name in self._shut if name not in passing)
        count = full = 0
        for _ in range(MAX_SHUT_LOOKS):
            if not self._passes or full == MAX_SHUT_PAGES:
                break
            name, pages = self._passes.popleft()
            page = next(pages, None)
            if page is None:
                continue
            self._passes.append((name, pages))
            full += bool(page.withdrawn or page.errors)
            count += len(page.withdrawn)
            for job_id, error in page.errors.items():
                self._failed.fail(job_id, error, now_ms, job=job_id)
        return count

    def _pages_of(self, name: PoolName) -> Iterator[WithdrawnPage]:
        def leaving(waiting: Sequence[WaitingDispatch]) -> list[WaitingDispatch]:
            may_leave = self._leaving(name, [each.job_id for each in waiting])
            return [each for each in waiting if each.job_id in may_leave]

        return pages_withdrawn(self._pools, name, None, leaving)

    def _leaving(self, name: PoolName, job_ids: Sequence[JobId]) -> Collection[JobId]:
        """Those of a pool's jobs that do not stay. The one that tries does."""
        breaker = self._shut.get(name)
        if breaker is None:
            return ()
        probe = None if breaker.probe is None else breaker.probe.job_id
        others = [job_id for job_id in job_ids if job_id != probe]
        if breaker.cause is TripCause.FAILURES or not others:
            return others
        rows, errors = self._store.read_each(needed_of_jobs, others)
        for job_id, error in errors.items():
            self._failed.fail(job_id, error, self._now_ms(), job=job_id)
        return self._moves.may_go_elsewhere(name, [row.job for row in rows])
