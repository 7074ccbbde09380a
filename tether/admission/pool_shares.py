"""Whether a tenant has its share of a pool that takes no more of its jobs, and how long one more would wait:
pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tether.ids import TenantId

_ROUNDING = 1e-6
"""Shares are sums of fractions."""


@dataclass(frozen=True)
class SharedPool:
    """A pool with the tenants that have jobs in it.

    Attributes:
      held: The jobs of each tenant in it.
      weights: The weights of these; one that is missing counts as 1.
    """

    held: Mapping[TenantId, int] = field(default_factory=lambda: MappingProxyType({}))
    weights: Mapping[TenantId, float] = field(default_factory=lambda: MappingProxyType({}))

    def share_of(self, tenant: TenantId) -> float:
        """A tenant's share of the jobs that are there, by its weight."""
        return sum(self.held.values()) * self._part(tenant)

    def has_its_share(self, tenant: TenantId) -> bool:
        """Whether a tenant has as many of them as it may, whatever others have; at least one."""
        held = self.held.get(tenant, 0)
        return held > 0 and held >= math.floor(self.share_of(tenant) + _ROUNDING)

    def jobs_before(self, tenant: TenantId) -> float:
        """The jobs that are served before one more of a tenant's, since the draw serves all by weight: what
        the tenant has, and as much of the others as their weights make of that."""
        held = self.held.get(tenant, 0)
        return min(held / self._part(tenant), float(sum(self.held.values())))

    def _part(self, tenant: TenantId) -> float:
        own = self.weights.get(tenant, 1.0)
        return own / (own + sum(self.weights.get(other, 1.0) for other in self.held if other != tenant))
