"""Which pools can serve a job at all: each filter is a small function that says why one cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tether.discovery.fleet.pool_views import PoolView
from tether.scheduling.models import ModelVersion


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
    """

    model: ModelVersion
    any_version: bool = False
    gpu_class: str = ""
    region: str = ""
    prompt_tokens: int = 0
    output_tokens: int = 256


Filter = Callable[[PlacementRequest, PoolView], str]
"""Answers why a pool cannot serve a job; empty where it can."""


def serves_model(request: PlacementRequest, pool: PoolView) -> str:
    """Model and version."""
    if pool.model != request.model.name:
        return f"serves {pool.model}"
    if pool.digest != request.model.digest and not request.any_version:
        return f"serves another version, {pool.version}"
    return ""


def has_live_workers(request: PlacementRequest, pool: PoolView) -> str:
    """Workers that live and take jobs."""
    return "" if pool.workers > 0 else "no live worker takes jobs"


def has_gpu_class(request: PlacementRequest, pool: PoolView) -> str:
    """The GPU class that the job or the model asks for."""
    for wanted in (request.gpu_class, request.model.gpu_class):
        if wanted not in ("", pool.gpu_class):
            return f"has GPU class {pool.gpu_class}, not {wanted}"
    return ""


def in_allowed_region(request: PlacementRequest, pool: PoolView) -> str:
    """The only region in which the model is served, where it has one."""
    allowed = request.model.region
    return "" if allowed in ("", pool.region) else f"the model is served in region {allowed} only"


def fits_context(request: PlacementRequest, pool: PoolView) -> str:
    """The context holds the prompt and at least one token of the answer."""
    if request.prompt_tokens + 1 > request.model.context:
        return f"the prompt has {request.prompt_tokens} tokens, the context {request.model.context}"
    return ""


FILTERS: tuple[Filter, ...] = (
    serves_model,
    has_live_workers,
    has_gpu_class,
    in_allowed_region,
    fits_context,
)


def why_not(request: PlacementRequest, pool: PoolView, filters: tuple[Filter, ...] = FILTERS) -> str:
    """The first reason why a pool cannot serve a job; empty where it can."""
    return next((reason for one in filters if (reason := one(request, pool))), "")
