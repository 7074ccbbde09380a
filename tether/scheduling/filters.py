"""Which pools can serve a job at all: each filter is a small function that says why one cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from tether.discovery.fleet.pool_views import PoolView
from tether.ids import PoolName, TenantId
from tether.models.registry import ModelVersion


@dataclass(frozen=True, kw_only=True)
class PlacementRequest:
    """What a job needs of a pool.

    Attributes:
      model: The version that is asked for.
      any_version: Whether another version of the same model will do.
      gpu_class: The only class that will do; empty is any.
      region: Where it is best served; empty is anywhere.
      prompt_tokens: Tokens of its prompt.
      output_tokens: Most tokens of its answer.
      avoid: A pool that will do only where no other does.
      tenant: Whose it is.
      may_try: Pools whose workers may have it though they are held back, to show whether they work again.
    """

    model: ModelVersion
    any_version: bool = False
    gpu_class: str = ""
    region: str = ""
    prompt_tokens: int = 0
    output_tokens: int = 256
    avoid: PoolName | None = None
    tenant: TenantId | None = None
    may_try: frozenset[PoolName] = frozenset()


class Unfit(StrEnum):
    """Why a pool cannot serve a job.

    Values:
      MODEL, VERSION: It serves another model, or another version of it.
      NO_WORKER: None of its workers lives and takes jobs.
      SUSPECT: All its workers are suspect, and another pool can serve the job.
      HELD: All its workers are held back since they fail what others do, and another pool can serve the job.
      AVOIDED: It kept the job in vain before, and another pool can serve it.
      GPU_CLASS, REGION: It is not where, or not on what, the job or the model may run.
      CONTEXT: The prompt does not fit into the model's context.
    """

    MODEL = "model"
    VERSION = "version"
    NO_WORKER = "no_worker"
    SUSPECT = "suspect"
    HELD = "held"
    AVOIDED = "avoided"
    GPU_CLASS = "gpu_class"
    REGION = "region"
    CONTEXT = "context"


@dataclass(frozen=True)
class Exclusion:
    """A pool that cannot serve a job: why, for programs, and in words that name what it has instead."""

    unfit: Unfit
    words: str


Filter = Callable[[PlacementRequest, PoolView], Exclusion | None]
"""Return why a pool cannot serve a job; None where this filter lets it pass."""


def serves_model(request: PlacementRequest, pool: PoolView) -> Exclusion | None:
    """Model and version."""
    if pool.model != request.model.name:
        return Exclusion(Unfit.MODEL, f"serves {pool.model}")
    if pool.digest != request.model.digest and not request.any_version:
        return Exclusion(Unfit.VERSION, f"serves another version, {pool.version}")
    return None


def has_live_workers(request: PlacementRequest, pool: PoolView) -> Exclusion | None:
    """Workers that live and take jobs."""
    if pool.workers > 0:
        return None
    if pool.silent:
        return Exclusion(Unfit.NO_WORKER, "its workers announce themselves and draw no jobs")
    return Exclusion(Unfit.NO_WORKER, "no live worker accepts jobs")


def has_gpu_class(request: PlacementRequest, pool: PoolView) -> Exclusion | None:
    """The GPU class that the job or the model asks for."""
    for wanted in (request.gpu_class, request.model.gpu_class):
        if wanted not in ("", pool.gpu_class):
            return Exclusion(Unfit.GPU_CLASS, f"has GPU class {pool.gpu_class}, not {wanted}")
    return None


def in_allowed_region(request: PlacementRequest, pool: PoolView) -> Exclusion | None:
    """The only region in which the model is served, where it has one."""
    allowed = request.model.region
    if allowed in ("", pool.region):
        return None
    return Exclusion(Unfit.REGION, f"the model is served in region {allowed} only")


def fits_context(request: PlacementRequest, pool: PoolView) -> Exclusion | None:
    """The context holds the prompt and at least one token of the answer."""
    if request.prompt_tokens + 1 <= request.model.context:
        return None
    return Exclusion(
        Unfit.CONTEXT, f"the prompt has {request.prompt_tokens} tokens, the context {request.model.context}"
    )


FILTERS: tuple[Filter, ...] = (
    serves_model,
    has_live_workers,
    has_gpu_class,
    in_allowed_region,
    fits_context,
)


def exclusion_of(
    request: PlacementRequest, pool: PoolView, filters: tuple[Filter, ...] = FILTERS
) -> Exclusion | None:
    """The first reason why a pool cannot serve a job; None where it can."""
    return next((found for one in filters if (found := one(request, pool)) is not None), None)
