"""Workers that are held back from pools, since they fail what others do: from whose jobs, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from tether.ids import PoolName, TenantId, WorkerId


@dataclass(frozen=True, kw_only=True)
class HeldPool:
    """A pool of which a worker gets one job at a time, with pauses.

    Attributes:
      pool: The pool.
      failed: Attempts in a row that failed.
      code: Of the last error.
      since_ms_ago: When the first of them failed.
      next_in_ms: When it may be given the next job; 0 is now.
      is_for_all: Whether it is held from the jobs of all tenants, not only of those whose jobs it failed.
      others_succeeded: Whether other workers had a success in the pool meanwhile.
    """

    pool: PoolName
    failed: int
    code: str
    since_ms_ago: int
    next_in_ms: int
    is_for_all: bool
    others_succeeded: bool

    def in_words(self) -> str:
        """Why it is held, and what follows."""
        attempts = f"{self.failed} attempts in a row failed" if self.failed != 1 else "1 attempt failed"
        why = f" ({self.code})" if self.code else ""
        others = "while other workers succeeded" if self.others_succeeded else "and no other worker succeeded"
        whose = "" if self.is_for_all else " of the tenants whose jobs failed"
        when = f"in {self.next_in_ms / 1000:.0f} s" if self.next_in_ms > 500 else "now"
        return (
            f"{attempts}{why} in {self.since_ms_ago / 1000:.0f} s, {others}: it gets one job{whose} at a "
            f"time until one succeeds, the next {when}"
        )


@dataclass(frozen=True, kw_only=True)
class HeldBack:
    """A worker gets one job of a pool at a time, with pauses.

    Attributes:
      tenants: Whose jobs it failed, as far as they are named.
      is_for_all: Whether it is held from everybody's jobs, and not only from theirs.
      may_try: Whether it would be given its next job at once, to show whether it works again.
      cannot_load: Whether that is since it fails to load the model again and again.
      why: What is told of it, which changes with time: it does not count where two are compared.
    """

    tenants: frozenset[TenantId]
    is_for_all: bool
    may_try: bool = False
    cannot_load: bool = False
    why: HeldPool | None = field(default=None, compare=False)

    def keeps_from(self, tenant: TenantId | None) -> bool:
        """Whether a tenant's jobs are kept from it; None asks for everybody's."""
        return self.is_for_all or tenant in self.tenants


Held: TypeAlias = Mapping[WorkerId, Mapping[PoolName, HeldBack]]
"""By worker id the pools that it is held back from."""
