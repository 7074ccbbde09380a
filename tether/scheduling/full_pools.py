"""Pools that were found to take no more jobs of a tenant a moment ago."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tether.ids import PoolName, TenantId

FULL_POOL_SECONDS = 1.0
"""For so long a pool is passed over that a claim found to take no more jobs of a tenant."""

MAX_FULL_POOLS = 1_000
"""Tenants of which that is remembered, and pools of each."""


class FullPools:
    """Remembers what claims found. Thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """
        Args:
          clock: Seconds of a monotonic clock.
        """
        self._clock = clock
        self._lock = threading.Lock()
        self._until: dict[TenantId, dict[PoolName, float]] = {}

    def note(self, pool: PoolName, tenant: TenantId) -> None:
        """A claim found that a pool takes no more jobs of a tenant now."""
        now = self._clock()
        with self._lock:
            if tenant not in self._until and len(self._until) >= MAX_FULL_POOLS:
                # What is forgotten is asked again, and nothing else.
                self._until.clear()
            pools = self._until.setdefault(tenant, {})
            if len(pools) >= MAX_FULL_POOLS:
                pools.clear()
            pools[pool] = now + FULL_POOL_SECONDS

    def of(self, tenant: TenantId | None) -> frozenset[PoolName]:
        """The pools that are passed over for a tenant's jobs."""
        if tenant is None or tenant not in self._until:
            return frozenset()
        now = self._clock()
        with self._lock:
            return frozenset(pool for pool, until in self._until.get(tenant, {}).items() if now < until)
