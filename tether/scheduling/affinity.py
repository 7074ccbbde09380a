"""Which pool serves a job best: five terms, each absolute and from 0 to 1, weighted and added up. Pure.

The depth term is made of an expected wait in seconds, so that a good match cannot draw all jobs to one pool.
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


@dataclass(frozen=True)
class Assumptions:
    """What is assumed of a pool where nothing was measured yet.

    Attributes:
      tokens_per_second: Of one slot.
      load_seconds: To load a model that is cold.
    """

    tokens_per_second: float = 20.0
    load_seconds: float = 10.0


def expected_wait(
    pool: PoolView, depth: int, tokens: float, assumptions: Assumptions = Assumptions()
) -> float:
    """Seconds until a pool would come to a new job.

    ``depth * tokens / tokens_per_second + (load_seconds if cold) + latency_hops * 0.025``

    Args:
      depth: Jobs in the pool that have not ended.
      tokens: Tokens that one of them makes.
    """
    rate = pool.tokens_per_second or assumptions.tokens_per_second * max(pool.slots, 1)
    load = 0.0 if pool.warm else assumptions.load_seconds
    return depth * tokens / rate + load + pool.latency_hops * SECONDS_PER_HOP


@dataclass(frozen=True)
class Candidate:
    """A pool that can serve the job.

    Attributes:
      pool: The pool.
      depth: Jobs in it that have not ended.
      expected_wait_seconds: Until it would come to the job.
    """

    pool: PoolView
    depth: int
    expected_wait_seconds: float


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
class InverseDepth:
    """``1 / (1 + expected wait / scale)``, both in seconds: one half where the wait is the scale."""

    weight: float = 1.0
    scale_seconds: float = 5.0
    name: str = "depth"

    def score(self, request: PlacementRequest, candidate: Candidate) -> float:
        return 1.0 / (1.0 + candidate.expected_wait_seconds / self.scale_seconds)


@dataclass(frozen=True)
class WarmBonus:
    """1 where a worker of the pool has the model loaded; else 0."""

    weight: float = 1.0
    name: str = "warm"

    def score(self, request: PlacementRequest, candidate: Candidate) -> float:
        return 1.0 if candidate.pool.warm else 0.0


def scorers_from(settings: SchedulingSettings) -> tuple[Scorer, ...]:
    """The five terms with the configured weights."""
    return (
        ModelMatch(settings.model_match),
        RegionProximity(settings.region, settings.other_region, settings.hop_step),
        GpuClassMatch(settings.gpu_class),
        InverseDepth(settings.depth, settings.wait_scale / 1000),
        WarmBonus(settings.warm),
    )


DEFAULT_SCORERS = scorers_from(SchedulingSettings())


@dataclass(frozen=True)
class Scored:
    """One pool in a choice.

    Attributes:
      pool: Its name.
      exclusion: Why it cannot serve the job; None where it can.
      total: The weighted sum of its terms.
      terms: Each term, unweighted.
      expected_wait_seconds: Until it would come to the job.
    """

    pool: PoolName
    exclusion: Exclusion | None = None
    total: float = 0.0
    terms: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    expected_wait_seconds: float = 0.0


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
    scorers: Sequence[Scorer] = DEFAULT_SCORERS,
    assumptions: Assumptions = Assumptions(),
) -> PlacementDecision:
    """The pool with the greatest weighted sum; of equal ones the first by name.

    Pools whose workers are all suspect are chosen only where no other can serve the job, and so are those
    whose workers are all held back.

    Args:
      depths: Jobs in each pool that have not ended, by name; 0 where it is missing.
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
    tokens = max(1, request.output_tokens)
    rows = []
    for pool in pools:
        exclusion = excluded[pool.name]
        if exclusion is not None:
            rows.append(Scored(pool.name, exclusion))
            continue
        depth = max(0, depths.get(pool.name, 0))
        candidate = Candidate(pool, depth, expected_wait(pool, depth, tokens, assumptions))
        rows.append(_scored(request, candidate, scorers))
    rows.sort(key=lambda row: (row.exclusion is not None, -row.total, row.pool))
    best = rows[0] if rows and rows[0].exclusion is None else None
    return PlacementDecision(best.pool if best else None, tuple(rows))


def can_serve(request: PlacementRequest, pools: Sequence[PoolView]) -> bool:
    """Whether :func:`choose` finds a pool, without any score."""
    return any(exclusion_of(request, pool) is None for pool in pools)


def _scored(request: PlacementRequest, candidate: Candidate, scorers: Sequence[Scorer]) -> Scored:
    terms = {scorer.name: _clamped(scorer.score(request, candidate)) for scorer in scorers}
    return Scored(
        pool=candidate.pool.name,
        total=math.fsum(scorer.weight * terms[scorer.name] for scorer in scorers),
        terms=MappingProxyType(terms),
        expected_wait_seconds=candidate.expected_wait_seconds,
    )


def _clamped(value: float) -> float:
    return min(1.0, max(0.0, value)) if math.isfinite(value) else 0.0
