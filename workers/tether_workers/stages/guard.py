"""The stage ``guard``: a tenant that has its share of the worker gets no more of it."""

from __future__ import annotations

from tether.broker.pools.slots import Slots
from tether.telemetry import metrics
from tether_workers.stages.work import InferenceWork
from tether_workers.tenant_shares import TenantShares


class QuotaGuard:
    """Hands a job back whose tenant has its share, with a hint how long this worker cannot run it.

    Draws pass such tenants over already: what comes here was drawn while that was not known yet.
    """

    name = "guard"

    def __init__(self, shares: TenantShares, slots: Slots) -> None:
        """
        Args:
          shares: What one tenant may have.
          slots: What runs, and in what order it was drawn: what was drawn first stays.
        """
        self._shares = shares
        self._slots = slots

    def run(self, work: InferenceWork) -> None:
        """Return where the job may be run; else let the attempt end, for another worker to go on with it."""
        drawn = work.attempt.drawn
        most = self._shares.share.slots
        seconds = self._shares.kept_back(drawn.tenant, work.attempt.began_at)
        has_all_slots = most is not None and self._slots.position(drawn.fence.draw_id) >= most
        if not seconds and not has_all_slots:
            return
        metrics.TENANT_SHARES.labels(action="handed_back").inc()
        work.attempt.hand_back(seconds or None)
