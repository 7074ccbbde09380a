"""Probes of breakers that are over though no attempt has ended: their jobs are not where they should try."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tether.ids import JobId, PoolName
from tether.scheduling.breaker import BreakerName, BreakerProbe
from tether.scheduling.shared_breakers import ReadBreaker, SharedBreakers
from tether.store.placements import pools_of
from tether.store.store import Store

PLACED_WITHIN_MS = 2_000
"""For so long a job that may try may not be recorded in the pool yet."""


class FreeProbes:
    """One look at the probes of breakers. One whose job was cancelled, has expired, found its pool full, was
    moved, or never came to be because its gateway died, frees the way for the next one.

    It must be seen so in two looks: what becomes of an attempt is known a moment after the job's state.
    """

    def __init__(self, store: Store, shared: SharedBreakers) -> None:
        self._store = store
        self._shared = shared
        self._suspects: frozenset[tuple[BreakerName, BreakerProbe]] = frozenset()

    def __call__(self, found: Sequence[ReadBreaker]) -> None:
        """Free those that are over.

        Raises:
          OUTAGE_ERRORS: Redis is away.
          StoreUnavailable: The database is.
        """
        tried = {
            (read.name, probe)
            for read in found
            if (probe := read.breaker.probe) is not None and read.now - probe.claimed_at >= PLACED_WITHIN_MS
        }
        if not tried:
            self._suspects = frozenset()
            return
        pools = self._store.read(pools_of, sorted({probe.job_id for _, probe in tried}))
        over = {(name, probe) for name, probe in tried if self._breaker_of(pools, probe) != name}
        for name, probe in over & self._suspects:
            self._shared.free(name, probe)
        self._suspects = frozenset(over)

    def forget(self) -> None:
        """Another orchestrator looks from here on."""
        self._suspects = frozenset()

    def _breaker_of(self, pools: Mapping[JobId, PoolName], probe: BreakerProbe) -> BreakerName | None:
        pool = pools.get(probe.job_id)
        return None if pool is None else self._shared.name_of(pool)
