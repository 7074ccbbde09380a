"""Which pools can serve a job at all: each filter is a small function that says why one cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from tether.discovery.fleet.pool_views import PoolView
from tether.ids import PoolName, TenantId
from tether.models.registry import ModelVersion
from tether.policies.decisions import why_not_gpu_class, why_not_model, why_not_region
from tether.policies.document import NO_POLICY
from tether.policies.kept import TenantPolicy, UnreadablePolicy
from tether.scheduling.breaker import BreakerName


class ShutBreaker(NamedTuple):
    """A breaker that does not let a job pass.

    Attributes:
      words: That it does not, since when and why.
      is_slow: Whether its model is only slow there: such a pool is better than none.
      seconds: After so many a job may try, at the earliest.
    """

    words: str
    is_slow: bool
    seconds: int


@dataclass(frozen=True, kw_only=True)
class PlacementRequest:
    """What a job needs of a pool.

    Attributes:
      model: The version that is asked for.
      any_version: Whether another version of the same model will do.
      gpu_class, region: Where it is to be served; empty is anywhere.
      min_vram: Bytes of GPU memory that each worker is to have; 0 is any.
      preferred: Which of region, gpu_class and min_vram will do otherwise too, and only score.
      prompt_tokens: Tokens of its prompt, estimated.
      least_prompt_tokens: Tokens that its prompt has at least, whatever the tokenizer.
      output_tokens: Most tokens of its answer.
      contexts: Context lengths of the model's other versions, by digest, as far as they are known.
      avoid: A pool that will do only where no other does.
      moved_to: The only pool that will do, where it can serve the job: an operator named it.
      paused: Pools that are paused, each with that and the reason in words.
      breakers: Breakers that do not let the job pass, by model and region.
      tenant: Whose it is.
      policy: What that tenant may use.
      full: Pools that were found to take no more jobs of this tenant.
      may_try: Pools whose workers may have it though they are held back, to show whether they work again.
    """

    model: ModelVersion
    any_version: bool = False
    gpu_class: str = ""
    region: str = ""
    min_vram: int = 0
    preferred: frozenset[str] = frozenset()
    prompt_tokens: int = 0
    least_prompt_tokens: int = 0
    output_tokens: int = 256
    contexts: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    avoid: PoolName | None = None
    moved_to: PoolName | None = None
    paused: Mapping[PoolName, str] = field(default_factory=lambda: MappingProxyType({}))
    breakers: Mapping[BreakerName, ShutBreaker] = field(default_factory=lambda: MappingProxyType({}))
    tenant: TenantId | None = None
    policy: TenantPolicy = NO_POLICY
    may_try: frozenset[PoolName] = frozenset()
    full: frozenset[PoolName] = frozenset()


class Unfit(StrEnum):
    """Why a pool cannot serve a job.

    Values:
      MODEL, VERSION: It serves another model, or another version of it.
      PAUSED: An operator has paused it.
      NO_WORKER: None of its workers lives and takes jobs.
      BREAKER: The circuit breaker of its model in its region is open: attempts failed there; or they were
        slow, and another pool can serve the job.
      SUSPECT: All its workers are suspect, and another pool can serve the job.
      HELD: All its workers are held back since they fail what others do, and another pool can serve the job.
      UNLOADABLE: None of its workers can load the model, and another pool can serve the job.
      AVOIDED: It kept the job in vain before, or an operator moved the job out of it, and another pool can
        serve it.
      MOVED: An operator moved the job to another pool, which can serve it.
      GPU_CLASS, REGION: It is not where, or not on what, the job or the model may run.
      POLICY: The policy of the job's tenant does not allow its region, its GPU class or its version of the
        model, or cannot be read.
      VRAM: It has a worker with less GPU memory than the job needs, or one that does not say what it has.
      CONTEXT: The job does not fit into the context of the version that it serves.
      FULL: It has as many jobs as it takes, of all tenants or of this one.
    """

    MODEL = "model"
    VERSION = "version"
    PAUSED = "paused"
    NO_WORKER = "no_worker"
    BREAKER = "breaker"
    SUSPECT = "suspect"
    HELD = "held"
    UNLOADABLE = "unloadable"
    AVOIDED = "avoided"
    MOVED = "moved"
    GPU_CLASS = "gpu_class"
    REGION = "region"
    POLICY = "policy"
    VRAM = "vram"
    CONTEXT = "context"
    FULL = "full"


@dataclass(frozen=True)
class Exclusion:
    """A pool that cannot serve a job: why, for programs, and in words that name what it has instead."""

    unfit: Unfit
    words: str

    @property
    def is_breaker(self) -> bool:
        """Whether a breaker keeps the job out."""
        return self.unfit is Unfit.BREAKER


Filter = Callable[[PlacementRequest, PoolView], Exclusion | None]
"""Return why a pool cannot serve a job; None where this filter lets it pass."""


def serves_model(request: PlacementRequest, pool: PoolView) -> Exclusion | None:
    """Model and version."""
    if pool.model != request.model.name:
        return Exclusion(Unfit.MODEL, f"serves {pool.model}")
    if pool.digest != request.model.digest and not request.any_version:
        return Exclusion(Unfit.VERSION, f"serves another version, {pool.version}")
    return None


def not_paused(request: PlacementRequest, pool: PoolView) -> Exclusion | None:
    """Pools that nobody has paused."""
    words = request.paused.get(pool.name)
    return None if words is None else Exclusion(Unfit.PAUSED, words)


def has_live_workers(request: PlacementRequest, pool: PoolView) -> Exclusion | None:
    """Workers that live and take jobs."""
    if pool.workers > 0:
        return None
    if pool.silent:
        return Exclusion(Unfit.NO_WORKER, "its workers announce themselves and draw no jobs")
    return Exclusion(Unfit.NO_WORKER, "no live worker accepts jobs")


def breaker_of(pool: PoolView) -> BreakerName:
    """The name of a pool's breaker, which all pools of its model in its region have in common."""
    return BreakerName(pool.model, pool.version, pool.region)


def passes_breaker(request: PlacementRequest, pool: PoolView) -> Exclusion | None:
    """Models that fail in the pool's region."""
    shut = request.breakers.get(breaker_of(pool)) if request.breakers else None
    return None if shut is None or shut.is_slow else Exclusion(Unfit.BREAKER, shut.words)


def is_fast_enough(request: PlacementRequest, pool: PoolView) -> Exclusion | None:
    """Models that are slow in the pool's region: a reason only where another pool can serve the job."""
    shut = request.breakers.get(breaker_of(pool)) if request.breakers else None
    return Exclusion(Unfit.BREAKER, f"{shut.words}; and others can serve") if shut and shut.is_slow else None


def has_gpu_class(request: PlacementRequest, pool: PoolView) -> Exclusion | None:
    """The GPU class that the job requires, and that which the version is restricted to."""
    required = "" if "gpu_class" in request.preferred else request.gpu_class
    if required not in ("", pool.gpu_class):
        return Exclusion(Unfit.GPU_CLASS, f"has GPU class {pool.gpu_class}, not {required}")
    allowed = _restriction(request, pool, request.model.gpu_class)
    if allowed not in ("", pool.gpu_class):
        return Exclusion(Unfit.GPU_CLASS, f"has GPU class {pool.gpu_class}, not {allowed}")
    return None


def in_region(request: PlacementRequest, pool: PoolView) -> Exclusion | None:
    """The region that the job requires, and that which the version is restricted to."""
    required = "" if "region" in request.preferred else request.region
    if required not in ("", pool.region):
        return Exclusion(Unfit.REGION, f"is in region {pool.region}, not {required}")
    allowed = _restriction(request, pool, request.model.region)
    if allowed not in ("", pool.region):
        return Exclusion(Unfit.REGION, f"the model is served in region {allowed} only")
    return None


def is_allowed_to_tenant(request: PlacementRequest, pool: PoolView) -> Exclusion | None:
    """What the policy of the job's tenant allows now, whatever it did when the job was accepted."""
    policy = request.policy
    if policy is NO_POLICY:
        return None
    if isinstance(policy, UnreadablePolicy):
        return Exclusion(
            Unfit.POLICY, f"is not known to be allowed: the policy of the tenant, {policy.in_words}"
        )
    why = (
        why_not_region(policy, pool.region)
        or why_not_gpu_class(policy, pool.gpu_class)
        or why_not_model(policy, pool.model, pool.version)
    )
    return Exclusion(Unfit.POLICY, f"is not allowed by the policy of the tenant: {why}") if why else None


def has_vram(request: PlacementRequest, pool: PoolView) -> Exclusion | None:
    """The GPU memory that the job requires: any of the pool's workers may draw it."""
    if "min_vram" in request.preferred or request.min_vram <= pool.vram:
        return None
    found = f"{in_gib(pool.vram)} of GPU memory" if pool.vram else "workers without known GPU memory"
    return Exclusion(Unfit.VRAM, f"has {found}, not {in_gib(request.min_vram)}")


def fits_context(request: PlacementRequest, pool: PoolView) -> Exclusion | None:
    """The context of another version holds the prompt and a token of the answer, and no shorter an
    answer than the job may have. For its own version that was checked when the job was accepted."""
    context = request.contexts.get(pool.digest)
    if context is None or (request.least_prompt_tokens < context and request.output_tokens <= context):
        return None
    return Exclusion(Unfit.CONTEXT, f"serves version {pool.version}, whose context is {context} tokens")


def in_gib(size: int) -> str:
    """Bytes as people read them."""
    return f"{size / 2**30:.4g} GiB" if size >= 2**20 else f"{size} bytes"


def _restriction(request: PlacementRequest, pool: PoolView, allowed: str) -> str:
    """What the version that is asked for is restricted to. Of others, workers know it themselves."""
    return allowed if pool.digest == request.model.digest else ""


FILTERS: tuple[Filter, ...] = (
    serves_model,
    has_gpu_class,
    in_region,
    is_allowed_to_tenant,
    has_vram,
    fits_context,
    not_paused,
    has_live_workers,
    passes_breaker,
)
"""In this order: a pool that is paused, without live workers, or whose breaker is open, meets all else that
is asked for."""


def exclusion_of(
    request: PlacementRequest, pool: PoolView, filters: tuple[Filter, ...] = FILTERS
) -> Exclusion | None:
    """The first reason why a pool cannot serve a job; None where it can."""
    return next((found for one in filters if (found := one(request, pool)) is not None), None)
