"""What is asked of pools for a job, with what is known beside it: pauses, breakers, its tenant's policy."""

from __future__ import annotations

from dataclasses import dataclass

from tether.envelopes import Placeable
from tether.ids import PoolName, TenantId
from tether.jobs import JobRequest
from tether.models.registry import Registry
from tether.scheduling.breaker_passes import BreakerPasses
from tether.scheduling.filters import PlacementRequest
from tether.scheduling.known_pauses import KnownPauses
from tether.scheduling.known_policies import KnownPolicies
from tether.scheduling.placement_requests import estimated_cost, placement_request


@dataclass(frozen=True)
class PlacementFacts:
    """Thread-safe. Its methods raise UnknownModel where a job's model is not configured (any longer), and
    StoreUnavailable."""

    registry: Registry
    pauses: KnownPauses
    policies: KnownPolicies
    passes: BreakerPasses

    def of_request(self, request: JobRequest, tenant: TenantId) -> PlacementRequest:
        """What a request that is no job yet needs of a pool."""
        return placement_request(
            request,
            self.registry.find(request.model),
            self.registry.models,
            cost=estimated_cost(request),
            output_tokens=request.sampling.max_tokens,
            paused=self.pauses.in_words(),
            breakers=self.passes.shut_for(tenant),
            policy=self.policies.of_tenant(tenant),
        )

    def of_job(
        self, job: Placeable, *, avoid: PoolName | None = None, moved_to: PoolName | None = None
    ) -> PlacementRequest:
        """What a job needs of a pool.

        Args:
          avoid, moved_to: See :class:`~tether.scheduling.filters.PlacementRequest`.
        """
        # Only an older program that still runs beside this one keeps no version.
        name = f"{job.model}@{job.model_version}" if job.model_version else job.model
        return placement_request(
            job,
            self.registry.find(name),
            self.registry.models,
            cost=job.cost,
            output_tokens=job.max_tokens,
            avoid=avoid,
            moved_to=moved_to,
            paused=self.pauses.in_words(),
            breakers=self.passes.shut(),
            tenant=job.tenant_id,
            policy=self.policies.of_tenant(job.tenant_id),
        )
