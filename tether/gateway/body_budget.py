"""How many bytes of request bodies a gateway holds at once, and whose they are."""

from __future__ import annotations

from collections import Counter

from tether.errors import TooManyRequests
from tether.ids import TenantId
from tether.telemetry import metrics

RETRY_SECONDS = 1.0
"""When to try again. Bodies are held until their jobs are accepted, which takes less as a rule."""


class BodyBudget:
    """Bytes that are promised to requests, from before their bodies are read. It belongs to one event loop.

    A tenant may hold as much as is left for others beside it: the first at most half, two a third each. So
    one that takes all it can leaves room for whoever comes next (dynamic thresholds: A. K. Choudhury,
    E. L. Hahne, "Dynamic queue length thresholds for shared-memory packet switches", IEEE/ACM Transactions on
    Networking 6(2), 1998, with α = 1).
    """

    def __init__(self, max_bytes: int) -> None:
        """
        Args:
          max_bytes: Of all requests together.
        """
        self._max_bytes = max_bytes
        self._held: Counter[TenantId] = Counter()
        self.in_flight = 0

    def held_by(self, tenant_id: TenantId) -> int:
        """Return the bytes that are promised to a tenant's requests."""
        return self._held[tenant_id]

    def take(self, tenant_id: TenantId, size: int) -> None:
        """Promise a request so many bytes, until :meth:`give_back`.

        Raises:
          TooManyRequests: They are not there, or would be more than the tenant's share.
        """
        held = self._held[tenant_id]
        if held + size > self._max_bytes - self.in_flight:
            metrics.BODIES_REFUSED.inc()
            error = TooManyRequests(
                f"the gateway is taking in {self.in_flight} bytes of request bodies now, {held} of them from "
                f"tenant {tenant_id!r}, and has no room for {size} more: try again later, or send less at "
                "once (the setting is gateway.bodies_in_flight)"
            )
            error.retry_after = RETRY_SECONDS
            raise error
        self._add(tenant_id, size)

    def give_back(self, tenant_id: TenantId, size: int) -> None:
        """Take back a promise, or a part of it."""
        self._add(tenant_id, -size)

    def _add(self, tenant_id: TenantId, size: int) -> None:
        if not size:
            return
        self.in_flight += size
        held = self._held[tenant_id] + size
        if held:
            self._held[tenant_id] = held
        else:
            del self._held[tenant_id]
        metrics.BODY_BYTES.inc(size)
