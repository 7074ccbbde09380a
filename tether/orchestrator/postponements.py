"""When waiting jobs are looked at again that no pool can serve, as where their policy allows none: pure.

Each tenant's are spread over time, by the generic cell rate algorithm (ITU-T Recommendation I.371, annex A):
to look at a job costs a choice and a write, and however many wait in vain, they cost the same. Once one of
them finds a pool, the others are recalled: they need not wait for their turn.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tether.ids import TenantId
from tether.store.waiting_jobs import KeptModel

POSTPONED_MS = 10_000
"""When a job is looked at again whose model is served, but by no pool that can serve this job."""

MAX_POSTPONED_MS = 300_000
"""The same for the last of many."""

AT_ONCE = 256
"""Jobs of a tenant that are looked at again at the same time."""

GAP_MS = 10
"""Between two further ones, of whichever tenant."""

RECALL_MS = 60_000
"""A recall that takes longer is given up: the rest is looked at in turn."""

MAX_POSTPONED_TENANTS = 4_096
"""Tenants, each with a model, of which it is known when their next jobs are due."""


class _Waiters(NamedTuple):
    """A tenant's jobs that wait for a model."""

    kept: KeptModel
    tenant: TenantId


@dataclass
class _Spread:
    """How a tenant's jobs are spread.

    Attributes:
      next_ms: When the next one's turn is, but for those that go at once; in milliseconds since the epoch.
      recall_ms: Since when they are recalled; 0 where they are not.
      rests_until_ms: They are recalled no sooner.
    """

    next_ms: int
    recall_ms: int = 0
    rests_until_ms: int = 0


class Postponements:
    """Says when jobs that were postponed are due again. One thread uses it."""

    def __init__(self) -> None:
        self._spreads: OrderedDict[_Waiters, _Spread] = OrderedDict()

    def due_at(self, kept: KeptModel, tenant: TenantId, now_ms: int) -> int:
        """When a job is due again that no pool can serve now; all in milliseconds since the epoch."""
        waiters, earliest = _Waiters(kept, tenant), now_ms + POSTPONED_MS
        spread = self._spreads.setdefault(waiters, _Spread(earliest))
        self._spreads.move_to_end(waiters)
        gap = GAP_MS * len(self._spreads)
        # A clock that was set back keeps nobody waiting for as long.
        turn = min(max(spread.next_ms, earliest), now_ms + MAX_POSTPONED_MS + AT_ONCE * gap)
        spread.next_ms = turn + gap
        self._forget(now_ms)
        return min(max(earliest, turn - AT_ONCE * gap), now_ms + MAX_POSTPONED_MS)

    def _forget(self, now_ms: int) -> None:
        """Forget those of whose jobs none is postponed any more."""
        while len(self._spreads) > 1:
            spread = next(iter(self._spreads.values()))
            if max(spread.next_ms, spread.rests_until_ms) > now_ms and (
                len(self._spreads) <= MAX_POSTPONED_TENANTS
            ):
                break
            self._spreads.popitem(last=False)

    def recalls(
        self, kept: KeptModel, tenants: Collection[TenantId], now_ms: int
    ) -> Iterator[tuple[TenantId, int]]:
        """Yield those of these tenants, for which a pool was found, whose other jobs are not to wait for
        their turn, each with the time before which those were postponed."""
        for tenant in tenants:
            spread = self._spreads.get(_Waiters(kept, tenant))
            if spread is None or spread.rests_until_ms > now_ms:
                continue
            if not spread.recall_ms and spread.next_ms > now_ms:
                spread.recall_ms = now_ms
            if spread.recall_ms:
                yield tenant, spread.recall_ms
                if not 0 <= now_ms - spread.recall_ms < RECALL_MS:
                    self.has_recalled(kept, tenant, now_ms)

    def has_recalled(self, kept: KeptModel, tenant: TenantId, now_ms: int) -> None:
        """All are due now. Where most of them find no pool still, it is not done again at once."""
        spread = self._spreads[_Waiters(kept, tenant)]
        spread.next_ms, spread.recall_ms, spread.rests_until_ms = now_ms, 0, now_ms + POSTPONED_MS
