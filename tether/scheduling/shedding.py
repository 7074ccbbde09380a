"""Jobs that are not to wait, and would have to: refused, with the time that they would have waited."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

from tether.admission.pool_shares import SharedPool
from tether.envelopes import Placeable
from tether.errors import NoLiveWorker, QueueFull
from tether.ids import PoolName, TenantId
from tether.scheduling.affinity import PlacementDecision, expected_times
from tether.scheduling.placement_requests import why_unplaced
from tether.scheduling.pool_choice import FullPool, PoolChoice
from tether.scheduling.tenants import Tenants
from tether.store.holds import tenants_in_pool
from tether.store.store import Store

FRESH_SHARES_SECONDS = 1.0
"""For so long what tenants have in a pool is believed, once a pool was found full."""

MAX_KNOWN_POOLS = 256

MAX_SHED_SECONDS = 3_600.0
"""Nobody is told to wait for longer."""


class _Held(NamedTuple):
    read_at: float
    of: Mapping[TenantId, int]


class Shedding:
    """Says whether a job is refused that no pool takes now, rather than accepted to wait. Thread-safe."""

    def __init__(
        self,
        choice: PoolChoice,
        store: Store,
        tenants: Tenants,
        *,
        absence_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        """
        Args:
          absence_seconds: When to try again where no worker serves the model.
          clock: Seconds of a monotonic clock.
        """
        self._choice = choice
        self._store = store
        self._tenants = tenants
        self._absence_seconds = absence_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[PoolName, _Held] = {}

    def refusal(self, job: Placeable, decision: PlacementDecision) -> NoLiveWorker | QueueFull | None:
        """Why a job is refused for which no pool was chosen; None where it waits all the same: its tenant has
        less than its share of a pool that others fill.

        Raises:
          StoreUnavailable: The database is unavailable.
        """
        if not decision.is_full:
            return self.no_live_worker(job.model, why_unplaced(decision))
        waits: list[float] = []
        for full in self._choice.full_pools(job, decision):
            shared = self._shared(full)
            if not shared.has_its_share(job.tenant_id):
                return None
            ahead = shared.jobs_before(job.tenant_id) + full.of_other_pools
            waits.append(expected_times(full.request, full.view, ahead).wait_seconds)
        return _queue_full(job, min(waits, default=0.0))

    def no_live_worker(self, model: str, why: str = "") -> NoLiveWorker:
        """That no worker can serve a model now.

        Args:
          why: More of it, in words.
        """
        error = NoLiveWorker(
            f"no worker serves model {model!r} now{f' ({why})' if why else ''}: try again later, or submit a "
            "job of class standard to /v1/jobs, which waits for one. The operator of this gateway starts one "
            "with `tether worker`, lets one take jobs again that is cordoned, or resumes a pool that is "
            "paused"
        )
        error.retry_after = self._absence_seconds
        return error

    def _shared(self, full: FullPool) -> SharedPool:
        name, now = full.view.name, self._clock()
        with self._lock:
            known = self._held.get(name)
        if known is None or not 0 <= now - known.read_at < FRESH_SHARES_SECONDS:
            known = _Held(now, self._store.read(tenants_in_pool, name))
            with self._lock:
                if len(self._held) >= MAX_KNOWN_POOLS:
                    self._held.clear()
                self._held[name] = known
        weights = {tenant: self._tenants.weight(tenant) or 1.0 for tenant in known.of}
        return SharedPool(known.of, weights)


def _queue_full(job: Placeable, seconds: float) -> QueueFull:
    seconds = min(max(1.0, seconds), MAX_SHED_SECONDS)
    error = QueueFull(
        f"the pools of model {job.model!r} take no more jobs of tenant {job.tenant_id!r} now, and this one "
        f"would begin in about {round(seconds)} s: try again by then, or submit a job of class standard to "
        "/v1/jobs, which waits"
    )
    error.retry_after = seconds
    return error
