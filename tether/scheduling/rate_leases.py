"""Requests that a process has taken ahead of time, for tenants that ask often: these need no round trip.

A lease is taken from the tenant's buckets like any request, and used within a fraction of a second
(:attr:`~tether.rate_limits.RateLimits.lease_ms`). What is used may so have been taken a little before;
where leases may be taken, the buckets are smaller by as much, and no span of time has more than without them.
What is not used is lost: so leases are as large as what was asked for lately, and are taken only from buckets
that are more than half full. A tenant that stays within its rates is not refused because of them.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from tether.broker.rate_buckets import BucketChange, ChargedGroup, ChargeGroup
from tether.ids import TenantId
from tether.rate_limits import UNITS, RateLimits, TakenUnits, after_rest
from tether.scheduling.shared_charges import Charge

MAX_LEASED_REQUESTS = 256
MAX_SHARE_OF_REST = 16
"""A lease has at most one of so many parts of what is left in a bucket."""


@dataclass
class _Demand:
    """What a tenant asks for here, and its lease.

    Attributes:
      seen: Requests since Redis was asked last, at ``asked_at`` (seconds).
      is_asking: Whether a thread takes a lease, since ``began_at``.
      limits: Those of the lease; its other attributes count only with them.
      requests, tokens: What is left of the lease, until ``ends_at`` (seconds).
      taken: The buckets as they were when it was taken, by the clock of this process.
      at_ms: When that was by Redis's.
    """

    asked_at: float
    seen: int = 0
    is_asking: bool = False
    began_at: float = 0.0
    limits: RateLimits = field(default_factory=RateLimits)
    requests: int = 0
    tokens: int = 0
    ends_at: float = 0.0
    taken: TakenUnits = field(default_factory=TakenUnits)
    at_ms: int = 0


class RateLeases:
    """Charges groups to leases, and otherwise together in Redis. Thread-safe."""

    def __init__(
        self,
        charge: Charge,
        known: Callable[[TenantId], TakenUnits | None],
        clock: Callable[[], float],
    ) -> None:
        """
        Args:
          charge: Charges groups in Redis.
          known: A tenant's buckets as far as this process knows, by its clock; None where it does not.
          clock: Seconds.
        """
        self._charge = charge
        self._known = known
        self._clock = clock
        self._lock = threading.Lock()
        self._demands: dict[TenantId, _Demand] = {}

    def charge(self, groups: Sequence[ChargeGroup]) -> list[ChargedGroup | None]:
        """Charge groups: to a lease, or in Redis; None for each for which Redis could not be asked."""
        results: list[ChargedGroup | None] = [self._use(group) for group in groups]
        numbers = [number for number, result in enumerate(results) if result is None]
        if not numbers:
            return results
        asked = [groups[number] for number in numbers]
        leases = [
            replace(group, costs=costs)
            for group in asked
            if (costs := self._ahead(group, self._known(group.tenant)))
        ]
        charged: list[ChargedGroup] | None = None
        try:
            charged = self._charge([*asked, *leases])
        finally:
            for place, lease in enumerate(leases, len(asked)):
                self._put(lease, None if charged is None else charged[place])
        if charged is not None:
            for number, result in zip(numbers, charged, strict=False):
                results[number] = result
        return results

    def _use(self, group: ChargeGroup) -> ChargedGroup | None:
        """Charge the requests of a group to its tenant's lease; None where that has not enough for all.

        Returns:
          The buckets as they are without what is left of the lease, at Redis's time of when it was taken.
        """
        if not group.limits.lease_ms or group.change is not BucketChange.TAKE:
            return None
        now = self._clock()
        with self._lock:
            demand = self._demands.get(group.tenant)
            if demand is None:
                return None
            demand.seen += len(group.costs)
            tokens = sum(group.costs)
            if (
                now >= demand.ends_at
                or demand.limits != group.limits
                or demand.requests < len(group.costs)
                or demand.tokens < tokens
            ):
                return None
            demand.requests -= len(group.costs)
            demand.tokens -= tokens
            used = TakenUnits(
                max(demand.taken.requests - demand.requests * UNITS, 0),
                max(demand.taken.tokens - demand.tokens * UNITS, 0),
                demand.taken.at_ms,
            )
            left = after_rest(used, group.limits, int(now * 1000))
            return ChargedGroup(left._replace(at_ms=demand.at_ms), ())

    def _ahead(self, group: ChargeGroup, taken: TakenUnits | None) -> tuple[int, ...]:
        """Tokens of each request that is to be taken ahead, since Redis is asked for a group anyway."""
        limits = group.limits
        if not limits.lease_ms or group.change is not BucketChange.TAKE:
            return ()
        now = self._clock()
        with self._lock:
            demand = self._demands.setdefault(group.tenant, _Demand(now))
            passed_ms, seen = (now - demand.asked_at) * 1000, demand.seen
            demand.asked_at, demand.seen = now, 0
            if demand.is_asking or taken is None or not seen or passed_ms > 4 * limits.lease_ms:
                return ()
            cost = math.ceil(sum(group.costs) / len(group.costs))
            wanted = min(MAX_LEASED_REQUESTS, int(seen * limits.lease_ms / max(passed_ms, 1)))
            count = min(wanted, _room(limits, after_rest(taken, limits, int(now * 1000)), cost))
            demand.is_asking, demand.began_at = count > 0, now
            return (cost,) * count

    def _put(self, group: ChargeGroup, charged: ChargedGroup | None) -> None:
        """Keep what was taken ahead; None where Redis did not answer."""
        now = self._clock()
        with self._lock:
            demand = self._demands.setdefault(group.tenant, _Demand(now))
            demand.is_asking = False
            if charged is None:
                return
            admitted = [
                cost for cost, each in zip(group.costs, charged.verdicts, strict=True) if each.is_admitted
            ]
            demand.limits, demand.requests, demand.tokens = group.limits, len(admitted), sum(admitted)
            # Whenever it was taken, it was after this.
            demand.ends_at = demand.began_at + group.limits.lease_ms / 1000
            demand.taken, demand.at_ms = charged.taken._replace(at_ms=int(now * 1000)), charged.taken.at_ms

    def forget(self, seconds: float) -> None:
        """Forget tenants for which Redis was not asked for so long."""
        before = self._clock() - seconds
        with self._lock:
            self._demands = {
                tenant: demand
                for tenant, demand in self._demands.items()
                if demand.is_asking or demand.asked_at >= before
            }


def _room(limits: RateLimits, taken: TakenUnits, cost: int) -> int:
    """Requests of this cost that may be taken ahead."""
    rooms = [MAX_LEASED_REQUESTS]
    for rate, units, capacity, each in (
        (limits.requests_per_minute, taken.requests, limits.request_capacity, UNITS),
        (limits.tokens_per_minute, taken.tokens, limits.token_capacity, cost * UNITS),
    ):
        if rate:
            left = capacity - units
            rooms.append(left // MAX_SHARE_OF_REST // each if 2 * left > capacity else 0)
    return min(rooms)
