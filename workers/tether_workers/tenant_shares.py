"""What one tenant may have of a worker: so many of its slots, and so many tokens a second."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from tether.broker.pools.draw_limits import DrawLimits
from tether.config.sections import WorkerSettings
from tether.ids import TenantId

BURST_SECONDS = 10.0
"""A tenant may make the tokens of so long at once before it is kept back."""

MAX_DEBT_SECONDS = 60.0
"""For no longer is a tenant kept back, however much its jobs that ran made: they are never stopped."""

MAX_TENANTS = 1024
"""So many tenants' tokens are counted. With more, those that made least go free."""

_ROUNDING = 1e-9
"""0.29 of 100 slots are 29, and not 28.999999999999996."""


@dataclass(frozen=True)
class TenantShare:
    """What each tenant may have.

    Attributes:
      slots: How many, at least one; None: all.
      tokens_per_second: How many of them it may generate; None: any number.
    """

    slots: int | None = None
    tokens_per_second: float | None = None

    @classmethod
    def of(cls, settings: WorkerSettings, slots: int) -> Self:
        """The share of a worker process that has so many slots."""
        most = max(int(settings.tenant_share * slots + _ROUNDING), 1)
        return cls(most if most < slots else None, settings.tenant_tokens_per_second)

    @property
    def is_limited(self) -> bool:
        return self.slots is not None or self.tokens_per_second is not None


def paid_off_at(former: float, tokens: int, tokens_per_second: float, now: float) -> float:
    """When a tenant that has generated further tokens will have paid for all of them, at its rate.

    A leaky bucket by the time at which it is empty: the generic cell rate algorithm (ITU-T I.371) as virtual
    scheduling.

    Args:
      former: The same before these.
      now: Seconds, of a clock that only goes on, as all times here.
    """
    paid = max(former, now) + tokens / tokens_per_second
    return min(paid, now + BURST_SECONDS + MAX_DEBT_SECONDS)


def seconds_kept_back(paid_at: float, now: float) -> float:
    """For how long no further job of a tenant may begin; 0: it may now."""
    return max(paid_at - now - BURST_SECONDS, 0.0)


class TenantShares:
    """Counts tokens of tenants, and says which of them have their share. Safe to use from many threads."""

    def __init__(self, share: TenantShare, clock: Callable[[], float]) -> None:
        """
        Args:
          clock: Seconds, of a clock that only goes on.
        """
        self.share = share
        self._clock = clock
        self._lock = threading.Lock()
        self._paid_at: dict[TenantId, float] = {}
        self._over_since: dict[TenantId, float] = {}
        self._tell: Callable[[], None] = lambda: None

    def on_tightened(self, call: Callable[[], None]) -> None:
        """Call this, and nothing that was given before, when a tenant has generated too much."""
        self._tell = call

    def note(self, tenant: TenantId, tokens: int) -> None:
        """A job of a tenant has generated so many tokens."""
        rate = self.share.tokens_per_second
        if rate is None or tokens <= 0:
            return
        now = self._clock()
        with self._lock:
            paid_at = paid_off_at(self._paid_at.get(tenant, now), tokens, rate, now)
            self._paid_at[tenant] = paid_at
            is_newly_over = tenant not in self._over_since and seconds_kept_back(paid_at, now) > 0
            if is_newly_over:
                self._over_since[tenant] = now
            if len(self._paid_at) > MAX_TENANTS:
                self._forget(now)
        if is_newly_over:
            self._tell()

    def _forget(self, now: float) -> None:
        """Forget who has paid; and where that is not enough, a quarter of all, those that owe least."""
        for tenant in [each for each, paid_at in self._paid_at.items() if paid_at <= now]:
            del self._paid_at[tenant]
        if len(self._paid_at) > MAX_TENANTS:
            for tenant in heapq.nsmallest(MAX_TENANTS // 4, self._paid_at, key=self._paid_at.__getitem__):
                del self._paid_at[tenant]
        self._over_since = {
            tenant: since for tenant, since in self._over_since.items() if tenant in self._paid_at
        }

    def kept_back(self, tenant: TenantId, drawn_at: float) -> float:
        """For how many seconds its tenant's tokens keep a job back that was drawn then. 0 where they did not
        when it was drawn: jobs that are drawn together begin together."""
        now = self._clock()
        with self._lock:
            if self._over_since.get(tenant, now) > drawn_at:
                return 0.0
            return seconds_kept_back(self._paid_at.get(tenant, now), now)

    def limits(self, running: Mapping[TenantId, int]) -> DrawLimits:
        """What a draw may take: nothing of a tenant that has its share.

        Args:
          running: How many slots each tenant fills.
        """
        most, now = self.share.slots, self._clock()
        left = {} if most is None else {tenant: max(most - filled, 0) for tenant, filled in running.items()}
        waits = []
        with self._lock:
            for tenant in tuple(self._over_since):
                if wait := seconds_kept_back(self._paid_at[tenant], now):
                    left[tenant] = 0
                    waits.append(wait)
                else:
                    del self._over_since[tenant]
        return DrawLimits(most, left, min(waits, default=None))
