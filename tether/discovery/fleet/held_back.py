"""Workers that are held back from pools, since they fail what others do, as far as placement needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from tether.ids import PoolName, TenantId, WorkerId


@dataclass(frozen=True, kw_only=True)
class HeldBack:
    """A worker gets one job of a pool at a time, with pauses.

    Attributes:
      tenants: Whose jobs it failed, as far as they are named.
      is_for_all: Whether it is held from everybody's jobs, and not only from theirs.
      may_try: Whether it would be given its next job at once, to show whether it works again.
    """

    tenants: frozenset[TenantId]
    is_for_all: bool
    may_try: bool = False

    def keeps_from(self, tenant: TenantId | None) -> bool:
        """Whether a tenant's jobs are kept from it; None asks for everybody's."""
        return self.is_for_all or tenant in self.tenants


Held: TypeAlias = Mapping[WorkerId, Mapping[PoolName, HeldBack]]
"""By worker id the pools that it is held back from."""
