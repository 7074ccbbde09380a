"""The choice of a job's pool, by the current fleet and the depths that are claimed in the database."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Protocol

from tether.config.settings import SchedulingSettings
from tether.discovery.fleet.pool_views import PoolView
from tether.envelopes import Placeable
from tether.ids import PoolName, TenantId
from tether.jobs import JobRequest
from tether.models.registry import ModelVersion, Registry
from tether.scheduling.affinity import Affinity, PlacementDecision, can_serve, choose
from tether.scheduling.filters import PlacementRequest, exclusion_of
from tether.scheduling.kept_decisions import kept_decision
from tether.scheduling.placement_requests import estimated_cost, placement_request, unmet_needs
from tether.scheduling.scorer_plugins import load_scorers
from tether.scheduling.shared_depth import shared_depths
from tether.store.decisions import Decision
from tether.store.holds import depths
from tether.store.store import Store
from tether.telemetry.logs import get_logger

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
        self._log = get_logger("tether.scheduling")
        self._lock = threading.Lock()
        self._depths: dict[PoolName, int] = {}
        self._shared: dict[PoolName, float] = {}
        self._tried_at: dict[PoolName, float] = {}
        self._read_at = -FRESH_SECONDS
        self._by_model: tuple[tuple[PoolView, ...], dict[str, list[PoolView]]] = ((), {})

    def choose(
        self,
        job: Placeable,
        *,
        avoid: PoolName | None = None,
        is_new: bool = False,
    ) -> PlacementDecision:
        """Choose the best pool for a job; the decision has none if none can serve it now.

        Args:
          avoid: A pool that is chosen only where no other can serve it.
          is_new: Whether it was never placed. Such a job may be given to workers that are held back, now and
            then one, to show whether they work again.

        Raises:
          UnknownModel: Its model is configured no longer.
        """
        request = self._request_of(job, avoid=avoid)
        if is_new:
            request = replace(request, may_try=self._may_try(self._pools_of(request.model), job.tenant_id))
        decision = self.explain(request)
        pool = decision.pool
        if pool is not None:
            if pool in request.may_try:
                self._tried_at[pool] = self._clock()
            # Until its claim is known: of many jobs at once, not all go to the pool that is empty now.
            with self._lock:
                self._depths[pool] = self._depths.get(pool, 0) + 1
        return decision

    def kept(self, decision: PlacementDecision, now_ms: int) -> Decision | None:
        """Return what is kept of a choice; None where that cannot be written, which is no reason to place no
        job.

        Args:
          now_ms: When it was made, in milliseconds since the epoch.
        """
        try:
            return kept_decision(decision, self._affinity, now_ms)
        except (ValueError, OverflowError) as error:
            # Names and numbers come from workers' announcements.
            self._log.warning("Why a job was placed where it was is not kept.", error=str(error))
            return None

    def _may_try(self, pools: Sequence[PoolView], tenant: TenantId | None) -> frozenset[PoolName]:
        held = [pool.name for pool in pools if pool.may_try and pool.able(tenant) == 0]
        if not held:
            return frozenset()
        now = self._clock()
        return frozenset(name for name in held if now - self._tried_at.get(name, -TRY_SECONDS) >= TRY_SECONDS)

    def is_served(self, request: JobRequest) -> bool:
        """Return whether a pool can serve a job now."""
        asked = self._asked_by(request)
        return can_serve(asked, self._pools_of(asked.model))

    def why_unserved(self, job: Placeable | JobRequest) -> str:
        """Return why no pool meets what a job asks for, in words; empty where one does, or there is no pool.

        Raises:
          UnknownModel: Its model is configured no longer.
        """
        if isinstance(job, Placeable):
            return unmet_needs(self.explain(self._request_of(job)))
        return unmet_needs(self.explain(self._asked_by(job)))

    def _asked_by(self, request: JobRequest) -> PlacementRequest:
        return placement_request(
            request,
            self.registry.find(request.model),
            self.registry.models,
            cost=estimated_cost(request),
            output_tokens=request.sampling.max_tokens,
        )

    def _request_of(self, job: Placeable, *, avoid: PoolName | None = None) -> PlacementRequest:
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
        )

    def served(self) -> list[ModelVersion]:
        """The models for which there is a pool now."""
        return list(self.serving())

    def serving(self) -> dict[ModelVersion, tuple[PoolView, ...]]:
        """The pools that can serve each model now; models that none can serve are left out."""
        found: dict[ModelVersion, tuple[PoolView, ...]] = {}
        for model in self.registry.models:
            request = PlacementRequest(model=model)
            views = tuple(pool for pool in self._pools_of(model) if exclusion_of(request, pool) is None)
            if views:
                found[model] = views
        return found

    def serving_needs(self, names: Collection[str]) -> dict[ModelVersion, tuple[PoolView, ...]]:
        """The pools that can serve jobs of each of these models that take any version of it."""
        found: dict[ModelVersion, tuple[PoolView, ...]] = {}
        for model in self.registry.models:
            if model.name in names and (pools := self._pools_of(model)):
                request = PlacementRequest(model=model, any_version=True)
                found[model] = tuple(pool for pool in pools if exclusion_of(request, pool) is None)
        return found

    def explain(self, request: PlacementRequest) -> PlacementDecision:
        """Return the choice with the cost of each of the model's pools, or why it was excluded."""
        pools = self._pools_of(request.model)
        return choose(request, pools, self._fresh_depths(), self._shared, self._affinity)

    def _pools_of(self, model: ModelVersion) -> Sequence[PoolView]:
        """The pools of a model, of all its versions. They are sorted by model once for each fleet: decisions
        look at few of many."""
        fleet, by_model = self._by_model
        pools = self._fleet.pools()
        if pools is not fleet:
            by_model = {}
            for pool in pools:
                by_model.setdefault(pool.model, []).append(pool)
            self._by_model = pools, by_model
        return by_model.get(model.name, ())

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
        shared = shared_depths(self._fleet.pools(), fresh)
        with self._lock:
            self._depths, self._shared = fresh, shared
            return fresh
