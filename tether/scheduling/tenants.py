"""Tenants as the scheduler knows them: read from the database now and then."""

from __future__ import annotations

import time
from collections.abc import Callable

from tether.ids import TenantId
from tether.store.store import Store
from tether.store.tenants import all_tenants

FRESH_SECONDS = 10.0


class Tenants:
    """Shares of tenants, at most ``FRESH_SECONDS`` old. Safe to use from many threads."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._weights: dict[TenantId, float] = {}
        self._read_at = -FRESH_SECONDS

    def weight(self, tenant: TenantId) -> float | None:
        """A tenant's share of each pool against others'; None where there is no such tenant."""
        now = self._clock()
        if tenant not in self._weights or now - self._read_at >= FRESH_SECONDS:
            found = self._store.read(all_tenants)
            self._weights, self._read_at = {one.tenant_id: one.weight for one in found}, now
        return self._weights.get(tenant)
