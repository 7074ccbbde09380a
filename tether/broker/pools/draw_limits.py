"""How many jobs of one tenant a draw may take: what a worker tells Redis of its tenants' shares."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from tether.ids import TenantId

MAX_LIMITED_TENANTS = 8192
"""So many tenants one draw can be told of."""

MAX_JOBS_OF_TENANT = 1024
"""No draw takes more jobs: a greater limit is none."""


@dataclass(frozen=True)
class DrawLimits:
    """How many jobs of one tenant may be drawn now. A tenant that has none left is passed over.

    Attributes:
      others: Of a tenant that ``left`` does not name, from 1 on; None: any number.
      left: By tenant, of at most :data:`MAX_LIMITED_TENANTS`.
      again_in_seconds: When one that is passed over may be drawn from again though none of its jobs ends;
        None: then alone.
    """

    others: int | None = None
    left: Mapping[TenantId, int] = field(default_factory=lambda: MappingProxyType({}))
    again_in_seconds: float | None = None

    @property
    def passed_over(self) -> frozenset[TenantId]:
        """The tenants of which nothing may be drawn."""
        return frozenset(tenant for tenant, jobs in self.left.items() if jobs <= 0)

    def after(self, drawn: Iterable[TenantId]) -> DrawLimits:
        """What is left once a job was drawn of each of these tenants."""
        left = dict(self.left)
        for tenant, count in Counter(drawn).items():
            of_tenant = left.get(tenant, self.others)
            if of_tenant is not None:
                left[tenant] = of_tenant - count
        return DrawLimits(self.others, left, self.again_in_seconds)

    def to_argument(self) -> str | None:
        """The argument of the script ``draw``; None where nothing is limited."""
        others = self.others if self.others is not None and self.others < MAX_JOBS_OF_TENANT else None
        left = {tenant: min(max(jobs, 0), MAX_JOBS_OF_TENANT) for tenant, jobs in self.left.items()}
        if others is None and not left:
            return None
        told = {} if others is None else {"others": others}
        return json.dumps({**told, "left": left}, separators=(",", ":"))


NO_LIMITS = DrawLimits()


class DrawLimiter(Protocol):
    """Knows what one tenant may have of a worker. Safe to use from many threads."""

    def limits(self, running: Mapping[TenantId, int]) -> DrawLimits:
        """What may be drawn now.

        Args:
          running: How many slots each tenant fills.
        """

    def on_tightened(self, call: Callable[[], None]) -> None:
        """Call this, and nothing that was given before, whenever a tenant has its share though no slot was
        filled: from any thread, and soon done."""
