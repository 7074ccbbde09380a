"""The choice of a job's pool, by the current fleet and the depths that are claimed in the database."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from tether.config.settings import SchedulingSettings
from tether.discovery.fleet.pool_views import PoolView
from tether.envelopes import Placeable
from tether.ids import PoolName, TenantId
from tether.jobs import JobRequest
from tether.models.registry import ModelVersion, Registry
from tether.scheduling.affinity import Affinity, PlacementDecision, can_serve, choose
from tether.scheduling.filters import PlacementRequest, exclusion_of
from tether.scheduling.placement_requests import placement_request, unmet_needs
from tether.scheduling.scorer_plugins import load_scorers
from tether.store.holds import depths
from tether.store.store import Store

FRESH_SECONDS = 1.0
"""Maximum age of a depth that was not updated by a claim of this process."""

TRY_SECONDS = 10.0
"""Between two jobs for a pool whose workers are all held back, where others can serve them. Without any,
nothing would show that they work again."""


class SeesPools(Protocol):
    """The fleet, as far as it is needed here."""

    def pools(self) -> tuple[PoolView, ...]: ...


class PoolChoice:
    """Filters and scores pools for jobs. Thread-safe.

    Depths are returned by the claims in the database, so that several gateways do not all choose the pool
    that was empty a moment ago.

    Attributes:
      registry: The configured models.
    """

    def __init__(
        self,
        fleet: SeesPools,
        registry: Registry,
        settings: SchedulingSettings,
        store: Store,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fleet = fleet
        self.registry = registry
        self._affinity = Affinity.of(settings, load_scorers())
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._depths: dict[PoolName, int] = {}
        self._tried_at: dict[PoolName, float] = {}
        self._read_at = -FRESH_SECONDS

    def choose(
        self,
        job: Placeable,
        *,
        avoid: PoolName | None = None,
        is_new: bool = False,
    ) -> PoolName | None:
        """Return the best pool for a job, or None if none can serve it now.

        Args:
          avoid: A pool that is chosen only where no other can serve it.
          is_new: Whether it was never placed. Such a job may be given to workers that are held back, now and
            then one, to show whether they work again.

        Raises:
          UnknownModel: Its model is configured no longer.
        """
        may_try = self._may_try(self._fleet.pools(), job.tenant_id) if is_new else frozenset()
        request = self._request_of(job, avoid=avoid, may_try=may_try)
        pool = self.explain(request).pool
        if pool is not None:
            if pool in request.may_try:
                self._tried_at[pool] = self._clock()
            # Until its claim is known: of many jobs at once, not all go to the pool that is empty now.
            with self._lock:
                self._depths[pool] = self._depths.get(pool, 0) + 1
        return pool

    def _may_try(self, pools: Sequence[PoolView], tenant: TenantId | None) -> frozenset[PoolName]:
        held = [pool.name for pool in pools if pool.may_try and pool.able(tenant) == 0]
        if not held:
            return frozenset()
        now = self._clock()
        return frozenset(name for name in held if now - self._tried_at.get(name, -TRY_SECONDS) >= TRY_SECONDS)

    def is_served(self, request: JobRequest) -> bool:
        """Return whether a pool can serve a job now."""
        model = self.registry.find(request.model)
        return can_serve(placement_request(request, model, self.registry.models), self._fleet.pools())

    def why_unserved(self, job: Placeable | JobRequest) -> str:
        """Return why no pool meets what a job asks for, in words; empty where one does, or there is no pool.

        Raises:
          UnknownModel: Its model is configured no longer.
        """
        if isinstance(job, Placeable):
            return unmet_needs(self.explain(self._request_of(job)))
        model = self.registry.find(job.model)
        return unmet_needs(self.explain(placement_request(job, model, self.registry.models)))

    def _request_of(
        self,
        job: Placeable,
        *,
        avoid: PoolName | None = None,
        may_try: frozenset[PoolName] = frozenset(),
    ) -> PlacementRequest:
        # Only an older program that still runs beside this one keeps no version.
        name = f"{job.model}@{job.model_version}" if job.model_version else job.model
        return placement_request(
            job,
            self.registry.find(name),
            self.registry.models,
            cost=job.cost,
            output_tokens=job.max_tokens,
            avoid=avoid,
            tenant=job.tenant_id,
            may_try=may_try,
        )

    def served(self) -> list[ModelVersion]:
        """The models for which there is a pool now."""
        pools = self._fleet.pools()
        digests = {pool.digest for pool in pools}
        return [
            model
            for model in self.registry.models
            if model.digest in digests and can_serve(PlacementRequest(model=model), pools)
        ]

    def serving(self) -> dict[ModelVersion, tuple[PoolView, ...]]:
        """The pools that can serve each model now; models that none can serve are left out."""
        found: dict[ModelVersion, tuple[PoolView, ...]] = {}
        pools = self._fleet.pools()
        digests = {pool.digest for pool in pools}
        for model in self.registry.models:
            if model.digest in digests:
                request = PlacementRequest(model=model)
                found[model] = tuple(pool for pool in pools if exclusion_of(request, pool) is None)
        return {model: views for model, views in found.items() if views}

    def serving_needs(self) -> dict[ModelVersion, tuple[PoolView, ...]]:
        """The pools that can serve jobs of each model that take any version of it."""
        pools = self._fleet.pools()
        names = {pool.model for pool in pools}
        found: dict[ModelVersion, tuple[PoolView, ...]] = {}
        for model in self.registry.models:
            if model.name in names:
                request = PlacementRequest(model=model, any_version=True)
                found[model] = tuple(pool for pool in pools if exclusion_of(request, pool) is None)
        return found

    def explain(self, request: PlacementRequest) -> PlacementDecision:
        """Return the choice with every pool's score, or why it was excluded."""
        return choose(request, self._fleet.pools(), self._fresh_depths(), self._affinity)

    def note_depth(self, pool: PoolName | None, depth: int) -> None:
        """Remember the depth returned by a claim on a pool; 0 is unknown."""
        if pool is not None and depth > 0:
            with self._lock:
                self._depths[pool] = depth

    def _fresh_depths(self) -> dict[PoolName, int]:
        now = self._clock()
        with self._lock:
            if now - self._read_at < FRESH_SECONDS:
                return self._depths
            self._read_at = now
        fresh = self._store.read(depths)
        with self._lock:
            self._depths = fresh
            return fresh
