"""Tenants as the scheduler knows them: read from the database now and then."""

from __future__ import annotations

import time
from collections.abc import Callable

from tether.errors import InvalidRequest
from tether.store.store import Store
from tether.store.tenants import all_tenants

FRESH_SECONDS = 10.0


class Tenants:
    """Shares of tenants, at most ``FRESH_SECONDS`` old. Safe to use from many threads."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._weights: dict[str, float] = {}
        self._read_at = -FRESH_SECONDS

    def weight(self, tenant: str) -> float:
        """A tenant's share of each pool against others'.

        Raises:
          InvalidRequest: There is no such tenant.
        """
        now = self._clock()
        if tenant not in self._weights or now - self._read_at >= FRESH_SECONDS:
            found = self._store.read(all_tenants)
            self._weights, self._read_at = {one.tenant_id: one.weight for one in found}, now
        if tenant not in self._weights:
            raise InvalidRequest(f"there is no tenant {tenant!r}: make it first, or name another")
        return self._weights[tenant]
