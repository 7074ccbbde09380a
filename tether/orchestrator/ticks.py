"""The lease loop: attempts that are silent for too long give their jobs back."""

from __future__ import annotations

from collections.abc import Callable

from tether.broker.pools import MOST_LEASES_A_TICK, Pools
from tether.telemetry import metrics
from tether.telemetry.logs import get_logger

BATCH_AGE_MS = 300_000
"""Age from which a batch job counts as a standard one."""


class TickLeases:
    """One tick: takes what ran out, by Redis's clock."""

    name = "leases"

    def __init__(
        self,
        pools: Pools,
        *,
        lease_ms: int,
        interval: float,
        on_lost: Callable[[str], None] = lambda worker: None,
    ) -> None:
        """
        Args:
          lease_ms: Life of a lease.
          interval: Seconds between ticks.
          on_lost: Called with the boot id of a worker that lost an attempt: nothing goes there for now.
        """
        self._pools = pools
        self._lease_ms = lease_ms
        self._interval = interval
        self._on_lost = on_lost
        self._log = get_logger("tether.orchestrator")

    def __call__(self) -> float:
        tick = self._pools.tick(self._lease_ms, BATCH_AGE_MS)
        for worker, became in tick.lost:
            self._log.warning("An attempt was silent for too long.", worker=worker, job_is=became)
            metrics.LEASES_LOST.inc()
            self._on_lost(worker)
        return 0 if tick.taken == MOST_LEASES_A_TICK else self._interval
