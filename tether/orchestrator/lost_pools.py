"""Pools that have lost their last worker, or the last that can do their jobs, give these back: another pool
gets them, or they are parked."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Self

from tether.broker.pools.pools import Pools
from tether.broker.pools.waiting_lanes import WaitingDispatch
from tether.broker.pools.withdrawn_lanes import WithdrawnPage, pages_withdrawn
from tether.clocks import monotonic_ms
from tether.ids import JobId, PoolName, TenantId
from tether.jobs import JobState
from tether.loops import IDLE
from tether.orchestrator.context import LoopContext
from tether.orchestrator.owed_lanes import LostShares, ParkOwedLanes
from tether.orchestrator.pool_looks import KnowsModels, LooksAtPools, SeesWorkers
from tether.orchestrator.set_aside import FailedEntries
from tether.orchestrator.waiting import WAITING
from tether.scheduling.lost_pools import PoolLook, PoolPatience, PoolWatch, lost_shares, watch_on
from tether.store.holds import depths
from tether.store.placements import states
from tether.store.store import Store
from tether.store.waiting_jobs import needed_of_jobs
from tether.telemetry import metrics
from tether.telemetry.logs import get_logger

LOST_POOLS = "lost-pools"
"""The name of the loop."""

PAGES = 4
"""Pages of jobs that a step withdraws, of lost pools in turn."""

MAX_LOOKS = 64
"""Pages that it looks for, at most: most of many lost pools have none."""

BETWEEN_PASSES_MS = 1_000
"""A pool is passed over again so long after a pass has ended: or many that are empty would keep it busy."""

BETWEEN_CHOICES_MS = 10_000
"""The same where some of its jobs stay, since no other pool may have them: all are looked at in each pass."""

MAX_UNSETTLED = 256
"""No more is withdrawn while the outcomes of so many are not settled: what others end shall not wait behind
them."""

UNSETTLED_MS = 10_000
"""So long an outcome is waited for: reconcile has lost ones written again."""

PAUSE_SECONDS = 0.05
"""Between two steps while there is something to give back."""

_UNSETTLED = frozenset({JobState.ACCEPTED, JobState.PLACED, JobState.RUNNING})


class GiveBackLost:
    """Watches pools with jobs, and gives back what waits in those that are lost.

    What waits in Redis is withdrawn, what the outbox owes is parked. From there on the loop of waiting jobs
    places it. Attempts that run end by their leases.
    """

    def __init__(
        self,
        store: Store,
        pools: Pools,
        view: SeesWorkers,
        *,
        models: KnowsModels,
        patience: PoolPatience,
        now_ms: Callable[[], int],
        monotonic: Callable[[], int] = monotonic_ms,
        on_parked: Callable[[], None] = lambda: None,
        watches: Callable[[PoolName], bool] = lambda pool: True,
    ) -> None:
        """
        Args:
          models: Says which models live workers serve now, and which pools have them loaded.
          now_ms: Milliseconds since the epoch.
          monotonic: Milliseconds of a monotonic clock.
          on_parked: Called when jobs were parked.
          watches: Whether the view has the workers of a pool: what it cannot see is not lost.
        """
        self._store = store
        self._pools = pools
        self._view = view
        self._models = models
        self._looks = LooksAtPools(store, pools, view, models, watches)
        self._patience = patience
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._on_parked = on_parked
        self._watch = PoolWatch()
        self._lost: dict[PoolName, frozenset[TenantId] | None] = {}
        self._passes: deque[tuple[PoolName, Iterator[WithdrawnPage]]] = deque()
        self._passed: dict[PoolName, int] = {}
        self._unsettled: dict[JobId, tuple[int, int]] = {}
        self._log = get_logger("tether.orchestrator")
        self._failed: FailedEntries[JobId] = FailedEntries(LOST_POOLS, self._log)
        self._owed = ParkOwedLanes(store, self._failed)

    @classmethod
    def make(cls, context: LoopContext) -> Self:
        plane, scheduling = context.plane, context.plane.settings.scheduling
        return cls(
            plane.store,
            plane.pools,
            plane.fleet,
            models=plane.waiting_placement,
            patience=PoolPatience(
                scheduling.lost_pool_grace,
                scheduling.lost_pool_parking,
                scheduling.lost_pool_loading,
                scheduling.lost_pool_cold,
            ),
            now_ms=context.now_ms,
            on_parked=lambda: context.wake(WAITING),
            watches=plane.watches,
        )

    def __call__(self) -> float:
        depth = self._store.read(depths)
        lost = self._look(depth)
        if lost.items() - self._lost.items():
            # What was seen may be a second old: it is looked once more before anything is done.
            self._view.judge()
            lost = self._look(depth)
        self._tell(lost, depth)
        same = {name for name, share in lost.items() if self._lost.get(name, ()) == share}
        self._passes = deque(each for each in self._passes if each[0] in same)
        self._lost = lost
        if not lost:
            return IDLE
        now_ms = self._now_ms()
        parked = self._owed.park(lost, now_ms, self._may_leave)
        withdrawn = self._withdraw(now_ms)
        metrics.JOBS_GIVEN_BACK.labels(waited_in="outbox").inc(parked)
        metrics.JOBS_GIVEN_BACK.labels(waited_in="redis").inc(withdrawn)
        if parked:
            self._on_parked()
        return PAUSE_SECONDS if parked or withdrawn or self._passes else IDLE

    def lapse(self) -> None:
        """Another orchestrator watches from here on: what this one saw is no longer told, and begins anew."""
        self._watch = PoolWatch()
        self._lost = {}
        self._passes.clear()
        metrics.LOST_POOLS.set(0)

    def _look(self, depth: Mapping[PoolName, int]) -> dict[PoolName, frozenset[TenantId] | None]:
        """Watch on. Return the pools that are lost, and whose jobs they give back."""
        self._watch = watch_on(self._watch, self._looks.look(self._monotonic(), depth))
        return lost_shares(self._watch, self._patience)

    def _withdraw(self, now_ms: int) -> int:
        """Withdraw some pages of the lost pools, in turn. Return how many jobs were."""
        passing = {name for name, _ in self._passes}
        at = self._monotonic()
        self._passed = {
            name: until for name, until in self._passed.items() if 0 < until - at <= BETWEEN_CHOICES_MS
        }
        fresh = sorted(self._lost.keys() - passing - self._passed.keys())
        self._passes.extend((name, self._pages_of(name)) for name in fresh)
        count = full = 0
        unsettled = self._unsettled_now(now_ms)
        for _ in range(MAX_LOOKS):
            if not self._passes or full == PAGES or unsettled + count >= MAX_UNSETTLED:
                break
            name, pages = self._passes.popleft()
            page = next(pages, None)
            if page is None:
                pause = BETWEEN_CHOICES_MS if self._some_stay(name) else BETWEEN_PASSES_MS
                self._passed[name] = at + pause
                continue
            self._passes.append((name, pages))
            full += bool(page.withdrawn or page.errors or self._some_stay(name))
            count += len(page.withdrawn)
            self._unsettled.update({job_id: (dispatch, now_ms) for job_id, dispatch in page.withdrawn})
            for job_id, error in page.errors.items():
                self._failed.fail(job_id, error, now_ms, job=job_id)
        return count

    def _some_stay(self, name: PoolName) -> bool:
        """Whether a pool has workers, and none does its jobs: what no other pool may have waits for them."""
        last = self._watch.last
        return last is not None and name in last.pools and last.pools[name].workers > 0

    def _pages_of(self, name: PoolName) -> Iterator[WithdrawnPage]:
        def leaving(waiting: Sequence[WaitingDispatch]) -> list[WaitingDispatch]:
            may_leave = self._may_leave(name, [each.job_id for each in waiting])
            return [each for each in waiting if each.job_id in may_leave]

        return pages_withdrawn(self._pools, name, self._lost[name], leaving)

    def _may_leave(self, name: PoolName, job_ids: Sequence[JobId]) -> Collection[JobId]:
        if not self._some_stay(name):
            return job_ids
        rows, errors = self._store.read_each(needed_of_jobs, list(job_ids))
        for job_id, error in errors.items():
            self._failed.fail(job_id, error, self._now_ms(), job=job_id)
        return self._models.may_go_elsewhere(name, [row.job for row in rows])

    def _unsettled_now(self, now_ms: int) -> int:
        """How many of those that were withdrawn are not settled yet."""
        if self._unsettled:
            found = self._store.read(states, list(self._unsettled))
            self._unsettled = {
                job_id: (dispatch, at)
                for job_id, (dispatch, at) in self._unsettled.items()
                if job_id in found
                and found[job_id][0] in _UNSETTLED
                and found[job_id][1] <= dispatch
                and now_ms - at < UNSETTLED_MS
            }
        return len(self._unsettled)

    def _tell(self, lost: LostShares, depth: Mapping[PoolName, int]) -> None:
        metrics.LOST_POOLS.set(len(lost))
        for name in sorted(lost.keys() - self._lost.keys()):
            look = PoolLook(workers=0) if self._watch.last is None else self._watch.last.pools[name]
            tenants = lost[name]
            self._log.warning(
                f"{_why_lost(look)} What waits there is given back.",
                pool=name,
                jobs=depth.get(name, 0),
                is_served_elsewhere=look.is_served_elsewhere
                or look.is_loaded_elsewhere
                or look.is_cold_elsewhere
                or bool(look.held_from),
                **({} if tenants is None else {"tenants": sorted(tenants)}),
            )
        for name in sorted(self._lost.keys() - lost.keys()):
            self._log.info(
                "A pool whose jobs were given back has none of them left, or has a worker that draws.",
                pool=name,
            )


def _why_lost(look: PoolLook) -> str:
    if look.held_from:
        return "All workers of a pool fail what others do, and other pools can do its jobs."
    if look.is_only_loading:
        return "No worker of a pool draws from it: they only load its model, and another pool can serve it."
    return "A pool has lost its last worker."
