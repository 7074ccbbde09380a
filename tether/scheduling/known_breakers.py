"""What a process knows of breakers that are not closed: what Redis had a moment ago."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

import redis

from tether.config.settings import BreakerSettings
from tether.ids import JobId, TenantId
from tether.loops import IDLE
from tether.scheduling.breaker import Breaker, BreakerName, BreakerProbe, BreakerRules, is_turn_of
from tether.scheduling.shared_breakers import SharedBreakers

FRESH_BREAKERS_SECONDS = 1.0
"""Between two looks."""

STALE_BREAKERS_SECONDS = 10.0
"""What is so old is not known any more: missing data never blocks."""

_NONE: Mapping[BreakerName, Breaker] = MappingProxyType({})


class KnownBreakers:
    """The step of a loop reads them; whoever places jobs asks without a round trip, but for a probe's claim.
    Thread-safe."""

    def __init__(
        self,
        shared: SharedBreakers,
        now_ms: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
          now_ms: Milliseconds since the epoch, by Redis's clock.
          clock: Seconds of a monotonic clock.
        """
        self._shared = shared
        self._now_ms = now_ms
        self._clock = clock
        self._known = _NONE
        self._read_at = -STALE_BREAKERS_SECONDS

    def __call__(self) -> float:
        """Read them.

        Raises:
          OUTAGE_ERRORS: Redis is away.
        """
        known = self._shared.told()
        self._known, self._read_at = MappingProxyType(known), self._clock()
        return IDLE

    def now_ms(self) -> int:
        """Milliseconds since the epoch, by Redis's clock."""
        return self._now_ms()

    def shut(self) -> Mapping[BreakerName, Breaker]:
        """The breakers that are not closed."""
        known = self._known
        return known if known and self._clock() - self._read_at < STALE_BREAKERS_SECONDS else _NONE

    def passable(
        self, shut: Mapping[BreakerName, Breaker], tenant: TenantId | None, *, comes_first: bool = True
    ) -> set[BreakerName]:
        """Those of these that a job of a tenant may try to pass now; None asks for anybody's.

        Args:
          comes_first: As for :func:`~tether.scheduling.breaker.is_turn_of`.
        """
        now, rules = self._now_ms(), self._shared.rules
        return {
            name
            for name, breaker in shut.items()
            if is_turn_of(breaker, tenant, rules, now, comes_first=comes_first)
        }

    def claim(self, name: BreakerName, job_id: JobId, tenant: TenantId) -> bool:
        """Whether a job may pass a breaker that is not closed; it is the probe then. That takes a round trip.
        Where Redis is away it may not."""
        try:
            may_pass = self._shared.claim(name, job_id, tenant)
        except redis.RedisError:
            may_pass = False
        breaker = self._known.get(name)
        if breaker is not None:
            # Until the next look nobody else of this process asks in vain.
            probe = BreakerProbe(job_id=job_id, tenant=tenant, claimed_at=self._now_ms())
            self._known = MappingProxyType({**self._known, name: replace(breaker, probe=probe)})
        return may_pass


def breaker_rules(settings: BreakerSettings) -> BreakerRules:
    """The rules that settings describe."""
    return BreakerRules(
        is_enabled=settings.enabled,
        window_ms=settings.window,
        min_samples=settings.min_samples,
        failure_share=settings.error_rate,
        latency_factor=settings.latency_factor,
        open_ms=settings.open_time,
        max_open_ms=settings.max_open_time,
        probes=settings.probes,
        probe_ms=settings.probe_time,
        baseline_ms=settings.baseline_time,
    )
