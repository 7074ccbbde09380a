"""The lease loop: attempts that are silent for too long give their jobs back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from tether.broker.pools.pools import MAX_LEASES_PER_TICK, Pools
from tether.ids import BootId
from tether.loops import IDLE
from tether.orchestrator.context import LoopContext
from tether.scheduling.pool_bounds import BATCH_AGE_MS
from tether.telemetry import metrics
from tether.telemetry.logs import get_logger


class TickLeases:
    """One tick: takes what ran out, by Redis's clock."""

    def __init__(
        self,
        pools: Pools,
        *,
        lease_ms: int,
        standard_age_ms: int = 0,
        standard_share: float = 0.0,
        on_lost: Callable[[BootId], None] = lambda boot_id: None,
    ) -> None:
        """
        Args:
          lease_ms: Life of a lease.
          standard_age_ms, standard_share: See :meth:`~tether.broker.pools.pools.Pools.tick`.
          on_lost: Called with the boot id of a worker that lost an attempt: nothing goes there for now.
        """
        self._pools = pools
        self._lease_ms = lease_ms
        self._standard_age_ms = standard_age_ms
        self._standard_share = standard_share
        self._on_lost = on_lost
        self._log = get_logger("tether.orchestrator")

    @classmethod
    def make(cls, context: LoopContext) -> Self:
        plane = context.plane
        scheduling = plane.settings.scheduling
        return cls(
            plane.pools,
            lease_ms=plane.settings.jobs.lease,
            standard_age_ms=scheduling.standard_age,
            standard_share=scheduling.standard_share,
            on_lost=plane.distrust_loser,
        )

    def __call__(self) -> float:
        tick = self._pools.tick(self._lease_ms, BATCH_AGE_MS, self._standard_age_ms, self._standard_share)
        for boot_id, became in tick.lost:
            self._log.warning("The lease of an attempt expired.", worker=boot_id, job_is=became)
            metrics.LEASES_LOST.inc()
            try:
                self._on_lost(boot_id)
            except Exception:
                # The attempts of others were taken too, and no later tick reports them.
                self._log.exception("A worker that lost an attempt cannot be distrusted.", worker=boot_id)
        return 0 if tick.taken == MAX_LEASES_PER_TICK else IDLE
