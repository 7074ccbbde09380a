"""Which pool serves a job best: by the seconds until its last token there, and what else it wishes. Pure.

The seconds are the currency. All else is a term from 0 to 1, absolute, and worth at most its weight times
``wait_scale`` seconds: so no good match can draw all jobs to one pool.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from tether.config.settings import SchedulingSettings
from tether.discovery.fleet.pool_views import PoolView
from tether.ids import PoolName
from tether.scheduling.filters import Exclusion, PlacementRequest, Unfit, exclusion_of

SECONDS_PER_HOP = 0.025
MIN_RATE = 0.001
"""Tokens a second of a slot, decoded or read: a lower rate is none that an engine has."""
ROUND_TRIPS = 2
"""From an orchestrator to a worker and back: one hands the job over, one brings its last token."""


@dataclass(frozen=True)
class Assumptions:
    """What is assumed of a pool of which no worker has measured it yet.

    Attributes:
      tokens_per_second: Decoded by one busy slot.
      prefill_tokens_per_second: Read by one busy slot.
      load_seconds: To load a model that is cold.
    """

    tokens_per_second: float = 20.0
    prefill_tokens_per_second: float = 2_000.0
    load_seconds: float = 10.0


@dataclass(frozen=True)
class ExpectedTimes:
    """What a new job is expected to take in a pool.

    Attributes:
      wait_seconds: Until a slot begins with it.
      seconds: Until its last token has come.
    """

    wait_seconds: float
    seconds: float


def expected_times(
    request: PlacementRequest, pool: PoolView, ahead: float, assumptions: Assumptions = Assumptions()
) -> ExpectedTimes:
    """The times of a new job, where those before it are as long as it is.

    ``service = prompt / prefill rate + output / rate of a busy slot``;
    ``wait = load_seconds if cold + service * max(0, ahead + 1 - slots) / slots``;
    ``seconds = wait + service + 2 * 0.025 * latency_hops``. Rates and load time are what the pool's workers
    measured, or what is assumed.

    Args:
      ahead: Jobs that have not ended and that the pool's workers have: those in the pool, and their share of
        those in the other pools that they draw from.
    """
    slots = max(pool.slots, 1)
    rate = max(pool.slot_tokens_per_second or assumptions.tokens_per_second, MIN_RATE)
    prefill_rate = max(pool.prefill_tokens_per_second or assumptions.prefill_tokens_per_second, MIN_RATE)
    service = request.prompt_tokens / prefill_rate + max(1, request.output_tokens) / rate
    load = 0.0 if pool.warm else pool.load_seconds or assumptions.load_seconds
    wait = service * max(0, ahead + 1 - slots) / slots + load
    way = ROUND_TRIPS * SECONDS_PER_HOP * pool.latency_hops
    return ExpectedTimes(wait, wait + service + way)


@dataclass(frozen=True)
class Candidate:
    """A pool that can serve the job.

    Attributes:
      pool: The pool.
      depth: Jobs in it that have not ended.
      expected: What the job is expected to take there.
    """

    pool: PoolView
    depth: int
    expected: ExpectedTimes


class Scorer(Protocol):
    """One term of the score. Users add theirs under the entry point group ``tether.scorers``.

    Attributes:
      name: The term's, as tables show it.
      weight: How much it counts, 0 or more.
    """

    @property
    def name(self) -> str: ...

    @property
    def weight(self) -> float: ...

    def score(self, request: PlacementRequest, candidate: Candidate) -> float:
        """From 0 to 1, from this candidate alone: never relative to the others."""
        ...


@dataclass(frozen=True)
class ModelMatch:
    """1 for exactly the version that is asked for; 0.5 for another one."""

    weight: float = 1.0
    name: str = "model_match"

    def score(self, request: PlacementRequest, candidate: Candidate) -> float:
        return 1.0 if candidate.pool.digest == request.model.digest else 0.5


@dataclass(frozen=True)
class RegionProximity:
    """1 in the region that is asked for, or where none is; else ``other_region - hop_step * latency_hops``,
    at least 0."""

    weight: float = 1.0
    other_region: float = 0.5
    hop_step: float = 0.05
    name: str = "region"

    def score(self, request: PlacementRequest, candidate: Candidate) -> float:
        pool = candidate.pool
        if request.region in ("", pool.region):
            return 1.0
        return max(0.0, self.other_region - self.hop_step * pool.latency_hops)


@dataclass(frozen=True)
class GpuClassMatch:
    """1 for the class that is asked for, and 1 for the GPU memory; else 0. The mean where both are asked for;
    0.5 where nothing is."""

    weight: float = 1.0
    name: str = "gpu_class"

    def score(self, request: PlacementRequest, candidate: Candidate) -> float:
        wanted = request.gpu_class or request.model.gpu_class
        met = [wanted == candidate.pool.gpu_class] if wanted else []
        met += [request.min_vram <= candidate.pool.vram] if request.min_vram else []
        return sum(met) / len(met) if met else 0.5


@dataclass(frozen=True)
class WarmBonus:
    """1 where a worker of the pool has the model loaded; else 0."""

    weight: float = 1.0
    name: str = "warm"

    def score(self, request: PlacementRequest, candidate: Candidate) -> float:
        return 1.0 if candidate.pool.warm else 0.0


@dataclass(frozen=True)
class Affinity:
    """How pools that can serve a job are compared: the least cost wins.

    ``cost = depth_weight * seconds - wait_scale_seconds * sum(weight * term)``, in seconds.

    Attributes:
      scorers: The terms.
      depth_weight: What a second until the job's last token counts.
      wait_scale_seconds: What a term of 1 with the weight 1 is worth.
    """

    scorers: tuple[Scorer, ...]
    depth_weight: float = 1.0
    wait_scale_seconds: float = 5.0

    @classmethod
    def of(cls, settings: SchedulingSettings, more: Sequence[Scorer] = ()) -> Affinity:
        """The seed's terms with the configured weights, and the users' own."""
        own: tuple[Scorer, ...] = (
            ModelMatch(settings.model_match),
            RegionProximity(settings.region, settings.other_region, settings.hop_step),
            GpuClassMatch(settings.gpu_class),
            WarmBonus(settings.warm),
        )
        return cls((*own, *more), settings.depth, settings.wait_scale / 1000)

    def scored(self, request: PlacementRequest, candidate: Candidate) -> Scored:
        """The candidate's cost, with all that it is made of."""
        terms = {scorer.name: _clamped(scorer.score(request, candidate)) for scorer in self.scorers}
        worth = math.fsum(scorer.weight * terms[scorer.name] for scorer in self.scorers)
        return Scored(
            pool=candidate.pool.name,
            cost_seconds=self.depth_weight * candidate.expected.seconds - self.wait_scale_seconds * worth,
            terms=MappingProxyType(terms),
            expected=candidate.expected,
        )


@dataclass(frozen=True)
class Scored:
    """One pool in a choice.

    Attributes:
      pool: Its name.
      exclusion: Why it cannot serve the job; None where it can.
      cost_seconds: What it costs the job, see :class:`Affinity`; infinite where it cannot serve it.
      terms: Each term, unweighted.
      expected: What the job is expected to take there; None where it cannot serve it.
    """

    pool: PoolName
    exclusion: Exclusion | None = None
    cost_seconds: float = math.inf
    terms: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    expected: ExpectedTimes | None = None


DEFAULT_AFFINITY = Affinity.of(SchedulingSettings())


@dataclass(frozen=True)
class PlacementDecision:
    """Where a job goes.

    Attributes:
      pool: The pool; None where none can serve it now.
      table: Every pool that was looked at, the best first, those that cannot serve it last.
    """

    pool: PoolName | None
    table: tuple[Scored, ...]


SUSPECT = Exclusion(Unfit.SUSPECT, "all its workers are suspect, and others can serve")

HELD = Exclusion(Unfit.HELD, "all its workers fail what others do, and others can serve")

AVOIDED = Exclusion(Unfit.AVOIDED, "it kept the job in vain before, and others can serve it")


def choose(
    request: PlacementRequest,
    pools: Sequence[PoolView],
    depths: Mapping[PoolName, int],
    shared: Mapping[PoolName, float] = MappingProxyType({}),
    affinity: Affinity = DEFAULT_AFFINITY,
) -> PlacementDecision:
    """The pool with the least cost; of equal ones the first by name.

    Pools whose workers are all suspect are chosen only where no other can serve the job, and so are those
    whose workers are all held back.

    Args:
      depths: Jobs in each pool that have not ended, by name; 0 where it is missing.
      shared: Jobs of other pools that the workers of each have, by name.
    """
    excluded = {pool.name: exclusion_of(request, pool) for pool in pools}
    # A suspect worker is mostly there, and one that is held back mostly fails.
    able = {pool.name for pool in pools if pool.able(request.tenant) > 0 or pool.name in request.may_try}
    if any(name in able and exclusion is None for name, exclusion in excluded.items()):
        excluded |= {pool.name: excluded[pool.name] or HELD for pool in pools if pool.name not in able}
    if any(pool.sure and excluded[pool.name] is None for pool in pools):
        for pool in pools:
            if not pool.sure:
                excluded[pool.name] = excluded[pool.name] or SUSPECT
    if any(pool.name != request.avoid and excluded[pool.name] is None for pool in pools):
        excluded |= {
            pool.name: excluded[pool.name] or AVOIDED for pool in pools if pool.name == request.avoid
        }
    rows = []
    for pool in pools:
        exclusion = excluded[pool.name]
        if exclusion is not None:
            rows.append(Scored(pool.name, exclusion))
            continue
        depth = max(0, depths.get(pool.name, 0))
        ahead = depth + shared.get(pool.name, 0.0)
        candidate = Candidate(pool, depth, expected_times(request, pool, ahead))
        rows.append(affinity.scored(request, candidate))
    rows.sort(key=lambda row: (row.exclusion is not None, row.cost_seconds, row.pool))
    best = rows[0] if rows and rows[0].exclusion is None else None
    return PlacementDecision(best.pool if best else None, tuple(rows))


def can_serve(request: PlacementRequest, pools: Sequence[PoolView]) -> bool:
    """Whether :func:`choose` finds a pool, without any score."""
    return any(exclusion_of(request, pool) is None for pool in pools)


def _clamped(value: float) -> float:
    return min(1.0, max(0.0, value)) if math.isfinite(value) else 0.0
