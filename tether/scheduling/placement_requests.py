"""What a job needs of a pool, from its request or its envelope: pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from tether.admission.fits_model import MAX_CHARACTERS_PER_TOKEN
from tether.ids import PoolName, TenantId
from tether.jobs import JobRequest
from tether.models.registry import ModelVersion
from tether.policies.document import NO_POLICY
from tether.policies.kept import TenantPolicy
from tether.scheduling.affinity import PlacementDecision, Scored
from tether.scheduling.breaker import BreakerName
from tether.scheduling.filters import PlacementRequest, ShutBreaker, Unfit

CHARACTERS_PER_TOKEN = 4
"""By which a prompt's tokens are estimated before an engine has counted them."""

MAX_POOLS_TOLD = 3
"""Pools of which is told why they do not serve a job."""


def estimated_cost(request: JobRequest) -> int:
    """Tokens of a request's prompt, estimated; at least 1."""
    return request.characters // CHARACTERS_PER_TOKEN + 1


_ASKED_OF_POOLS = frozenset({Unfit.POLICY, Unfit.GPU_CLASS, Unfit.REGION, Unfit.VRAM, Unfit.CONTEXT})


class HasNeeds(Protocol):
    """A request or an envelope, as far as it says what is asked of a pool."""

    @property
    def region(self) -> str: ...

    @property
    def gpu_class(self) -> str: ...

    @property
    def min_vram(self) -> int: ...

    @property
    def any_version(self) -> bool: ...

    @property
    def preferred(self) -> frozenset[str]: ...


def placement_request(
    job: HasNeeds,
    model: ModelVersion,
    models: Sequence[ModelVersion],
    *,
    cost: int = 1,
    output_tokens: int = 0,
    avoid: PoolName | None = None,
    moved_to: PoolName | None = None,
    paused: Mapping[PoolName, str] = MappingProxyType({}),
    breakers: Mapping[BreakerName, ShutBreaker] = MappingProxyType({}),
    tenant: TenantId | None = None,
    policy: TenantPolicy = NO_POLICY,
) -> PlacementRequest:
    """Return what a job needs of a pool.

    Args:
      model: The version that it names.
      models: All that are configured.
      cost: Its prompt's tokens as they were estimated when it was accepted. Of a version, fewer count: what
        surely does not fit is refused, and nothing else.
      output_tokens: Most tokens of its answer; 0 where that is not known.
      avoid, moved_to, paused, breakers, tenant, policy: See
        :class:`~tether.scheduling.filters.PlacementRequest`.
    """
    others: list[ModelVersion] = []
    if job.any_version:
        others = [each for each in models if each.name == model.name and each.digest != model.digest]
    return PlacementRequest(
        model=model,
        any_version=job.any_version,
        gpu_class=job.gpu_class,
        region=job.region,
        min_vram=job.min_vram,
        preferred=job.preferred,
        prompt_tokens=cost,
        least_prompt_tokens=max(cost - 1, 0) * CHARACTERS_PER_TOKEN // MAX_CHARACTERS_PER_TOKEN,
        output_tokens=output_tokens or PlacementRequest.output_tokens,
        contexts={each.digest: each.context for each in others},
        avoid=avoid,
        moved_to=moved_to,
        paused=paused,
        breakers=breakers,
        tenant=tenant,
        policy=policy,
    )


def why_unplaced(decision: PlacementDecision) -> str:
    """Why no pool gets a job, in words: none meets what it asks for, or those that do are paused, have an
    open breaker or take no more jobs.

    Empty where one can get it, and where its pools' workers are away.
    """
    if decision.pool is not None:
        return ""
    if full := _rows(decision, (Unfit.FULL,)):
        return f"its pools take no more jobs now: {_told(full)}; it is placed in turn once they do"
    paused, unmet = _rows(decision, (Unfit.PAUSED, Unfit.BREAKER)), _rows(decision, _ASKED_OF_POOLS)
    if _rows(decision, (Unfit.NO_WORKER,)):
        return _told(paused)
    if paused:
        return _told([*paused, *unmet])
    if not unmet:
        return ""
    is_policy = any(row.exclusion is not None and row.exclusion.unfit is Unfit.POLICY for row in unmet)
    what = "what the job asks for and its tenant may use" if is_policy else "what the job asks for"
    return f"no pool meets {what}: {_told(unmet)}"


def _rows(decision: PlacementDecision, unfit: Collection[Unfit]) -> list[Scored]:
    return [row for row in decision.table if row.exclusion is not None and row.exclusion.unfit in unfit]


def _told(rows: Sequence[Scored]) -> str:
    words = [f"pool {row.pool} {row.exclusion.words}" for row in rows if row.exclusion is not None]
    if len(words) > MAX_POOLS_TOLD:
        words[MAX_POOLS_TOLD:] = [f"and {len(words) - MAX_POOLS_TOLD} more"]
    return "; ".join(words)
