"""Tenants as the scheduler knows them: read from the database now and then."""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import Connection, select

from tether.errors import InvalidRequest
from tether.store.schema import tenants
from tether.store.store import Store

FRESH_SECONDS = 10.0


def read_weights(connection: Connection) -> dict[str, float]:
    """Every tenant's share."""
    query = select(tenants.c.tenant_id, tenants.c.weight)
    return {row.tenant_id: row.weight for row in connection.execute(query)}


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
            self._weights, self._read_at = self._store.read(read_weights), now
        if tenant not in self._weights:
            raise InvalidRequest(f"there is no tenant {tenant!r}: make it first, or name another")
        return self._weights[tenant]
