"""What placing a job asks of breakers: which pools they shut, and who may try to pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from types import MappingProxyType

from tether.discovery.fleet.pool_views import PoolView
from tether.envelopes import Placeable
from tether.ids import PoolName, TenantId
from tether.scheduling.affinity import PlacementDecision
from tether.scheduling.breaker import BreakerName, TripCause
from tether.scheduling.breaker_words import seconds_to_probe, why_shut
from tether.scheduling.filters import PlacementRequest, ShutBreaker, breaker_of
from tether.scheduling.known_breakers import KnownBreakers

_NONE: Mapping[BreakerName, ShutBreaker] = MappingProxyType({})


class BreakerPasses:
    """Thread-safe."""

    def __init__(self, known: KnownBreakers | None) -> None:
        """
        Args:
          known: None where nobody asks breakers.
        """
        self._known = known

    def shut(self) -> Mapping[BreakerName, ShutBreaker]:
        """The breakers that are not closed, whoever asks."""
        return self._shut(lambda: ())

    def shut_for(self, tenant: TenantId | None) -> Mapping[BreakerName, ShutBreaker]:
        """The same without those that a job of a tenant may try to pass now; None asks for anybody's."""
        return self._shut(lambda: self._passable(tenant))

    def decide(
        self,
        request: PlacementRequest,
        job: Placeable,
        pools: Collection[PoolView],
        explain: Callable[[PlacementRequest], PlacementDecision],
    ) -> PlacementDecision:
        """Choose a pool for a job that is going to be placed. Where the best one's breaker is half-open and
        nobody tries, the job does, if no other process has been faster. One that has failed before, and that
        another pool can serve, leaves the first moment to others: it may fail again, and would wait for long.

        Args:
          request: With all breakers that are not closed.
          pools: Those of its model.
          explain: Makes the choice.
        """
        passable = self._passable(job.tenant_id) if request.breakers else set()
        if not passable or self._known is None:
            return explain(request)
        if job.failed_on:
            elsewhere = explain(request)
            if elsewhere.pool is not None:
                passable = self._passable(job.tenant_id, comes_first=False)
            if not passable:
                return elsewhere
        decision = explain(_without(request, passable))
        names = {pool.name: breaker_of(pool) for pool in pools}
        chosen = None if decision.pool is None else names[decision.pool]
        if chosen not in passable:
            return explain(request)
        may_pass = self._known.claim(chosen, job.job_id, job.tenant_id)
        # None of the others that it could try may get it by way of a claim: it would be a second one there.
        return explain(_without(request, {chosen}) if may_pass else request)

    def _passable(self, tenant: TenantId | None, *, comes_first: bool = True) -> set[BreakerName]:
        known = self._known
        return set() if known is None else known.passable(known.shut(), tenant, comes_first=comes_first)

    def _shut(self, passable: Callable[[], Collection[BreakerName]]) -> Mapping[BreakerName, ShutBreaker]:
        known = {} if self._known is None else self._known.shut()
        if not known or self._known is None:
            return _NONE
        now, free = self._known.now_ms(), passable()
        return {
            name: ShutBreaker(
                why_shut(name, breaker, now),
                breaker.cause is TripCause.SLOWNESS,
                seconds_to_probe(breaker, now),
            )
            for name, breaker in known.items()
            if name not in free
        }


def first_shut(
    decision: PlacementDecision, request: PlacementRequest, pools: Collection[PoolView]
) -> ShutBreaker | None:
    """The breaker that keeps a job from all pools which could serve it, and lets one try the soonest; None
    where it is no breaker that keeps it."""
    if decision.pool is not None:
        return None
    names: Mapping[PoolName, BreakerName] = {pool.name: breaker_of(pool) for pool in pools}
    shut = [
        request.breakers[names[row.pool]]
        for row in decision.table
        if row.exclusion is not None and row.exclusion.is_breaker
    ]
    return min(shut, key=lambda one: one.seconds) if shut else None


def _without(request: PlacementRequest, names: Collection[BreakerName]) -> PlacementRequest:
    breakers = {name: shut for name, shut in request.breakers.items() if name not in names}
    return replace(request, breakers=breakers)
