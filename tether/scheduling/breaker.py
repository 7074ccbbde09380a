"""The circuit breaker of one model in one region: when it opens, lets a job try, and closes. Pure.

Three states (M. Nygard, "Release It!", 2nd ed., chapter 5): closed, where all jobs pass; open, where none
does; half-open, where one job at a time tries, and what becomes of it decides. It opens by the share of
attempts that failed, or that were slow against the breaker's own baseline, in a sliding window with a minimum
of samples; the defaults of minimum and share are those of Hystrix and Resilience4j. That missing data never
blocks, and that a model is compared with its own speed in the region, is as in AssemblyAI's gateway
(https://assemblyai.com/docs/llm-gateway/circuit-breaker).

A share counts only if it is as great without any one tenant, and without any one worker, as long as there are
others: neither the prompts of one tenant nor one broken worker open the breaker of all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple, Self

from tether.ids import JobId, TenantId
from tether.scheduling.attempt_samples import AttemptSample, least_share, newest_of_tenants, normal_speed

SLOW_SHARE = 0.5
"""If more of the attempts are slow, so is their median."""

MAX_TENANTS_PASSED_OVER = 8
"""Tenants whose probes failed and that are remembered: others come first."""

MAX_TURN_MS = 5_000
"""For so long after it has become half-open, other tenants than those whose probes failed come first."""

PROBE_ADAPTION = 0.1
"""What a slow probe changes of the baseline, of its logarithm: a speed that has changed for good is the
normal one after some probes, and nobody has to reset anything."""

MAX_DOUBLINGS_OF_OPEN = 20


class BreakerName(NamedTuple):
    """Whose breaker it is: a version of a model, in a region."""

    model: str
    version: str
    region: str

    @property
    def full_model(self) -> str:
        """``<model>@<version>``."""
        return f"{self.model}@{self.version}"

    @property
    def text(self) -> str:
        """``<model>@<version>:<region>``: only a model's name may have a colon."""
        return f"{self.full_model}:{self.region}"

    @classmethod
    def of_text(cls, text: str) -> Self:
        """The name that :attr:`text` returned.

        Raises:
          ValueError: It is none.
        """
        full_name, _, region = text.rpartition(":")
        model, _, version = full_name.rpartition("@")
        if not (model and version and region):
            raise ValueError(f"{text!r} is not the name of a breaker")
        return cls(model, version, region)


class BreakerState(StrEnum):
    """What a breaker lets pass: every job, none, or one at a time that tries."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class TripCause(StrEnum):
    """Why a breaker opened: attempts failed, or they were slow."""

    FAILURES = "failures"
    SLOWNESS = "slowness"


@dataclass(frozen=True, kw_only=True)
class BreakerRules:
    """When breakers open and close. Times are in milliseconds.

    Attributes:
      is_enabled: Whether they ever open.
      window_ms: Attempts that ended so long ago count.
      min_samples: Attempts without which nothing is judged.
      failure_share: The share of them that must fail.
      latency_factor: An attempt is slow whose time for a token is more than so many times the baseline.
      open_ms, max_open_ms: How long it stays open at first, and at most.
      probes: Good probes that close it.
      probe_ms: After so long a probe that nobody heard of is given up.
      baseline_ms: By when the baseline has followed a change of speed by about two thirds.
    """

    is_enabled: bool = True
    window_ms: int = 60_000
    min_samples: int = 20
    failure_share: float = 0.5
    latency_factor: float = 3.0
    open_ms: int = 10_000
    max_open_ms: int = 300_000
    probes: int = 1
    probe_ms: int = 60_000
    baseline_ms: int = 3_600_000

    @property
    def max_of_tenant(self) -> int:
        """Attempts of one tenant that count, its newest."""
        return 2 * self.min_samples

    def open_for_ms(self, trips: int) -> int:
        """How long it stays open when it has tripped so often in a row: twice as long each time."""
        return min(self.max_open_ms, self.open_ms << min(trips - 1, MAX_DOUBLINGS_OF_OPEN))


@dataclass(frozen=True, kw_only=True)
class BreakerProbe:
    """The job that tries, and since when."""

    job_id: JobId
    tenant: TenantId
    claimed_at: int


@dataclass(frozen=True, kw_only=True)
class Breaker:
    """What is kept of a breaker. Times are Redis's, in milliseconds since the epoch.

    Attributes:
      cause: Why it is open; None where it is closed.
      opened_at: Since when it is not closed.
      until: Until when it is open; from then on it is half-open.
      since: Attempts that began earlier count no longer: it closed, or was reset, only then.
      trips: How often it has opened in a row.
      share, count: What share of how many attempts opened it.
      probe: The job that tries, if there is one.
      passed_over: Tenants whose probes failed since it opened.
      baseline: Milliseconds for a token in normal times; 0 where they are not known.
      measured_at: Up to when the baseline has followed.
    """

    cause: TripCause | None = None
    opened_at: int = 0
    until: int = 0
    since: int = 0
    trips: int = 0
    share: float = 0.0
    count: int = 0
    probe: BreakerProbe | None = None
    passed_over: tuple[TenantId, ...] = ()
    baseline: float = 0.0
    measured_at: int = 0

    def state(self, now: int) -> BreakerState:
        """Its state at a time."""
        if self.cause is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self.until else BreakerState.HALF_OPEN


CLOSED_BREAKER = Breaker()
"""What is not known is closed: missing data never blocks."""


def judged_breaker(
    breaker: Breaker, samples: Sequence[AttemptSample], rules: BreakerRules, now: int
) -> Breaker:
    """What becomes of a breaker by the attempts that ended lately. The same ones again change nothing more.

    Args:
      samples: All that are known of its window, those that were judged before among them, in any order.
    """
    if not rules.is_enabled:
        return replace(closed_breaker(breaker, now), trips=0) if breaker.cause is not None else breaker
    breaker = _within_bounds(breaker, rules, now)
    if breaker.cause is not None:
        return _judged_open(breaker, samples, rules, now)
    window = [
        one for one in samples if now - rules.window_ms < one.at <= now and one.began_at > breaker.since
    ]
    # What went well before must not hide that nothing does now, nor one tenant's attempts those of others.
    counted = newest_of_tenants([one for one in window if one.blame is not None], rules.max_of_tenant)
    share = least_share(counted, lambda one: one.blame or 0.0)
    if len(counted) >= rules.min_samples and share >= rules.failure_share:
        return _opened(breaker, TripCause.FAILURES, share, len(counted), rules, now)
    measured = [one for one in counted if one.ms_per_token > 0]
    if len(measured) < rules.min_samples:
        return breaker
    share = least_share(measured, lambda one: float(is_slow(breaker, one, rules)))
    if share > SLOW_SHARE:
        return _opened(breaker, TripCause.SLOWNESS, share, len(measured), rules, now)
    return _followed(breaker, normal_speed(measured), rules, now)


def is_slow(breaker: Breaker, sample: AttemptSample, rules: BreakerRules) -> bool:
    """Whether an attempt was slow against the baseline; never where either was not measured."""
    return 0 < breaker.baseline * rules.latency_factor < sample.ms_per_token


def claimed_breaker(breaker: Breaker, job: BreakerProbe, rules: BreakerRules) -> Breaker | None:
    """The breaker once a job may pass; None where it may not.

    A half-open one is passed by one job at a time, until that ends, or nobody heard of it for long. Tenants
    whose probes failed wait a moment for others: it may have been their prompts.
    """
    if breaker.state(job.claimed_at) is BreakerState.CLOSED:
        return breaker
    if breaker.probe is not None and breaker.probe.job_id == job.job_id:
        return breaker
    return replace(breaker, probe=job) if is_turn_of(breaker, job.tenant, rules, job.claimed_at) else None


def is_turn_of(
    breaker: Breaker, tenant: TenantId | None, rules: BreakerRules, now: int, *, comes_first: bool = True
) -> bool:
    """Whether a job of a tenant may try at this time; None asks for anybody's.

    Args:
      comes_first: Whether it need not wait a moment for others.
    """
    if breaker.state(now) is not BreakerState.HALF_OPEN or _has_probe(breaker, rules, now):
        return False
    turn_ms = min(MAX_TURN_MS, rules.open_ms // 2)
    return (comes_first and tenant not in breaker.passed_over) or now >= breaker.until + turn_ms


def freed_breaker(breaker: Breaker, probe: BreakerProbe) -> Breaker | None:
    """The breaker once a probe is over without an attempt; None where it is another's turn by now."""
    return replace(breaker, probe=None) if breaker.probe == probe else None


def closed_breaker(breaker: Breaker, now: int) -> Breaker:
    """The breaker once it is closed: what began before says nothing more. Its baseline stays."""
    return Breaker(since=now, trips=breaker.trips, baseline=breaker.baseline, measured_at=breaker.measured_at)


def _judged_open(
    breaker: Breaker, samples: Sequence[AttemptSample], rules: BreakerRules, now: int
) -> Breaker:
    # What was drawn while it was open had been placed before: it says nothing new.
    fresh = sorted(
        (one for one in samples if breaker.until <= one.began_at and one.at <= now), key=lambda one: one.at
    )
    good = 0
    for sample in fresh:
        if sample.blame is None:
            continue
        slow = breaker.cause is TripCause.SLOWNESS and is_slow(breaker, sample, rules)
        if slow or sample.blame >= 0.5:
            return _reopened(breaker, sample, rules, now, is_slow=slow)
        good += sample.blame == 0
        if good >= rules.probes:
            return closed_breaker(breaker, now)
    probe = breaker.probe
    if probe is not None and any(one.job_id == probe.job_id and one.at >= probe.claimed_at for one in fresh):
        return replace(breaker, probe=None)
    return breaker


def _reopened(
    breaker: Breaker, sample: AttemptSample, rules: BreakerRules, now: int, *, is_slow: bool
) -> Breaker:
    trips = breaker.trips + 1
    others = [tenant for tenant in breaker.passed_over if tenant != sample.tenant]
    baseline = breaker.baseline
    if is_slow:
        baseline *= (sample.ms_per_token / baseline) ** PROBE_ADAPTION
    return replace(
        breaker,
        until=now + rules.open_for_ms(trips),
        trips=trips,
        probe=None,
        passed_over=(*others, sample.tenant)[-MAX_TENANTS_PASSED_OVER:],
        baseline=baseline,
    )


def _opened(
    breaker: Breaker, cause: TripCause, share: float, count: int, rules: BreakerRules, now: int
) -> Breaker:
    # One that has been closed for long is as good as one that never opened.
    is_repeated = breaker.trips > 0 and now - breaker.since <= rules.max_open_ms
    trips = breaker.trips + 1 if is_repeated else 1
    return replace(
        breaker,
        cause=cause,
        opened_at=now,
        until=now + rules.open_for_ms(trips),
        trips=trips,
        share=share,
        count=count,
        probe=None,
        passed_over=(),
    )


def _followed(breaker: Breaker, measured: float, rules: BreakerRules, now: int) -> Breaker:
    """The breaker with a baseline that has moved towards what was measured, by the time that has passed: slow
    enough that slowness which is going to open it is over before that is the normal speed."""
    if breaker.baseline <= 0:
        return replace(breaker, baseline=measured, measured_at=now)
    passed_ms = min(max(0, now - breaker.measured_at), rules.window_ms)
    part = 1 - math.exp(-passed_ms / rules.baseline_ms)
    baseline = breaker.baseline * (measured / breaker.baseline) ** part
    return replace(breaker, baseline=baseline, measured_at=now)


def _within_bounds(breaker: Breaker, rules: BreakerRules, now: int) -> Breaker:
    """A clock that was set back, or settings that were changed, keep it open no longer than it may be, nor
    closed for ever."""
    return replace(
        breaker,
        until=min(breaker.until, now + rules.max_open_ms),
        since=min(breaker.since, now),
        measured_at=min(breaker.measured_at, now),
    )


def _has_probe(breaker: Breaker, rules: BreakerRules, now: int) -> bool:
    probe = breaker.probe
    return probe is not None and probe.claimed_at <= now < probe.claimed_at + rules.probe_ms
