"""The choice of a job's pool, by the current fleet and the depths that are claimed in the database."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple, Protocol

from tether.config.settings import SchedulingSettings
from tether.discovery.fleet.pool_views import PoolView
from tether.envelopes import Placeable
from tether.explanations import Explanation
from tether.ids import PoolName, TenantId
from tether.jobs import JobRequest, Priority
from tether.models.registry import ModelVersion, Registry
from tether.scheduling.affinity import Affinity, PlacementDecision, can_serve, choose
from tether.scheduling.filters import PlacementRequest, exclusion_of
from tether.scheduling.kept_decisions import kept_decision
from tether.scheduling.known_pauses import KnownPauses
from tether.scheduling.placement_requests import estimated_cost, placement_request, why_unplaced
from tether.scheduling.pool_bounds import bound_of_class, pool_bound
from tether.scheduling.relief import MoveRule, crowded
from tether.scheduling.scorer_plugins import load_scorers
from tether.scheduling.shared_depth import shared_depths
from tether.store.capacity import Claim, has_room, room_of_tenant, share_name
from tether.store.decision_texts import explanation_of
from tether.store.decisions import Decision
from tether.store.holds import depths, shares
from tether.store.store import Store
from tether.telemetry.logs import get_logger

FRESH_SECONDS = 1.0
"""Maximum age of a depth that was not updated by a claim of this process."""

FULL_SECONDS = 1.0
"""For so long a pool is passed over that a claim found to take no more jobs of a tenant."""

MAX_FULL = 1_000
"""Tenants of which that is remembered, and pools of each."""

TRY_SECONDS = 10.0
"""Between two jobs for a pool whose workers are all held back, where others can serve them. Without any,
nothing would show that they work again."""


class _Sorted(NamedTuple):
    """A fleet's pools by their models, and how many jobs each takes of each class."""

    pools: tuple[PoolView, ...]
    by_model: Mapping[str, Sequence[PoolView]]
    bounds: Mapping[Priority, Mapping[PoolName, int]]


class SeesPools(Protocol):
    """The fleet, as far as it is needed here."""

    def pools(self) -> tuple[PoolView, ...]: ...


class PoolChoice:
    """Filters and scores pools for jobs. Thread-safe.

    Depths are returned by the claims in the database, so that several gateways do not all choose the pool
    that was empty a moment ago.

    Attributes:
      registry: The configured models.
      pauses: Pools that get no jobs.
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
        self._settings = settings
        self._affinity = Affinity.of(settings, load_scorers())
        self._store = store
        self._clock = clock
        self._log = get_logger("tether.scheduling")
        self.pauses = KnownPauses(store, clock)
        self._lock = threading.Lock()
        self._depths: dict[PoolName, int] = {}
        self._shared: dict[PoolName, float] = {}
        self._tried_at: dict[PoolName, float] = {}
        self._read_at = -FRESH_SECONDS
        self._full_until: dict[TenantId, dict[PoolName, float]] = {}
        self._sorted = _Sorted((), {}, {priority: {} for priority in Priority})

    def choose(
        self,
        job: Placeable,
        *,
        avoid: PoolName | None = None,
        moved_to: PoolName | None = None,
        is_new: bool = False,
    ) -> PlacementDecision:
        """Choose the best pool for a job; the decision has none if none can serve it now, or has room.


        Args:
          avoid: A pool that is chosen only where no other can serve it.
          moved_to: A pool that is chosen where it can serve it, whatever the others are.
          is_new: Whether it was never placed. Such a job may be given to workers that are held back, now and
            then one, to show whether they work again. It passes over pools that were found full for its
            tenant a moment ago: others are asked again each time.

        Raises:
          UnknownModel: Its model is configured no longer.
        """
        request = self._request_of(job, avoid=avoid, moved_to=moved_to)
        if is_new:
            request = self._as_new(request)
        decision = self.explain(request, job.priority)
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

    def claims(self, decision: PlacementDecision, priority: Priority) -> tuple[Claim, ...]:
        """Return the pools that can serve a job of a class, the best first."""
        bounds = self._sorted.bounds[priority]
        able = (row.pool for row in decision.table if row.exclusion is None)
        return tuple(Claim(name, bounds[name]) for name in able if name in bounds)

    def _full_for(self, tenant: TenantId) -> frozenset[PoolName]:
        now = self._clock()
        with self._lock:
            return frozenset(pool for pool, until in self._full_until.get(tenant, {}).items() if now < until)

    def note_full(self, pool: PoolName, tenant: TenantId) -> None:
        """A claim found that a pool takes no more jobs of a tenant now."""
        now = self._clock()
        with self._lock:
            if tenant not in self._full_until and len(self._full_until) >= MAX_FULL:
                # What is forgotten is asked again, and nothing else.
                self._full_until.clear()
            pools = self._full_until.setdefault(tenant, {})
            if len(pools) >= MAX_FULL:
                pools.clear()
            pools[pool] = now + FULL_SECONDS

    def explanation(self, job: Placeable) -> Explanation:
        """Return what would be chosen now for a job that was never placed, and why. Nothing is claimed.

        Raises:
          UnknownModel: Its model is configured no longer.
          StoreUnavailable: The database is unavailable.
          ValueError, OverflowError: A pool has names or numbers that cannot be told.
        """
        request = self._with_full(self._as_new(self._request_of(job)), job)
        decision = self.explain(request, job.priority)
        # By way of the text that would be kept: it says the same before and after.
        return explanation_of(kept_decision(decision, self._affinity, 0).choice, decision.pool)

    def _as_new(self, request: PlacementRequest) -> PlacementRequest:
        if request.tenant in self._full_until:
            request = replace(request, full=self._full_for(request.tenant))
        may_try = self._may_try(self._pools_of(request.model), request.tenant)
        return replace(request, may_try=may_try) if may_try else request

    def _with_full(self, request: PlacementRequest, job: Placeable) -> PlacementRequest:
        # Who hands a job over learns it of the claim. Where nothing is claimed the counters have to tell.
        bounds, held = self._bounds_of(request.model, job.priority), self._fresh_depths()
        names = {name: share_name(name, job.tenant_id) for name in bounds}
        of_tenant = self._store.read(shares, list(names.values()))
        full = {
            name
            for name, bound in bounds.items()
            if not has_room(bound, held.get(name, 0), of_tenant.get(names[name], 0))
        }
        return replace(request, full=request.full | full)

    def _bounds_of(self, model: ModelVersion, priority: Priority) -> dict[PoolName, int]:
        pools = self._pools_of(model)
        bounds = self._sorted.bounds[priority]
        return {pool.name: bounds[pool.name] for pool in pools}

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
        """Return why no pool gets a job, in words; empty where one can, or there is no pool.

        Raises:
          UnknownModel: Its model is configured no longer.
          StoreUnavailable: The database is unavailable.
        """
        if isinstance(job, Placeable):
            request = self._with_full(self._request_of(job), job)
            return why_unplaced(self.explain(request, job.priority))
        return why_unplaced(self.explain(self._asked_by(job), job.priority))

    def _asked_by(self, request: JobRequest) -> PlacementRequest:
        return placement_request(
            request,
            self.registry.find(request.model),
            self.registry.models,
            cost=estimated_cost(request),
            output_tokens=request.sampling.max_tokens,
            paused=self.pauses.in_words(),
        )

    def _request_of(
        self, job: Placeable, *, avoid: PoolName | None = None, moved_to: PoolName | None = None
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
            moved_to=moved_to,
            paused=self.pauses.in_words(),
            tenant=job.tenant_id,
        )

    def served(self) -> list[ModelVersion]:
        """The models for which there is a pool now."""
        return list(self.serving())

    def serving(self) -> dict[ModelVersion, tuple[PoolView, ...]]:
        """The pools that can serve each model now; models that none can serve are left out."""
        found: dict[ModelVersion, tuple[PoolView, ...]] = {}
        paused = self.pauses.in_words()
        for model in self.registry.models:
            request = PlacementRequest(model=model, paused=paused)
            views = tuple(pool for pool in self._pools_of(model) if exclusion_of(request, pool) is None)
            if views:
                found[model] = views
        return found

    def serving_needs(self, names: Collection[str]) -> dict[ModelVersion, tuple[PoolView, ...]]:
        """The pools that can serve jobs of each of these models that take any version of it."""
        found: dict[ModelVersion, tuple[PoolView, ...]] = {}
        paused = self.pauses.in_words()
        for model in self.registry.models:
            if model.name in names and (pools := self._pools_of(model)):
                request = PlacementRequest(model=model, any_version=True, paused=paused)
                found[model] = tuple(pool for pool in pools if exclusion_of(request, pool) is None)
        return found

    def explain(self, request: PlacementRequest, priority: Priority = Priority.STANDARD) -> PlacementDecision:
        """Return the choice with the cost of each of the model's pools, or why it was excluded."""
        pools, known = self._pools_of(request.model), self._fresh_depths()
        bounds = self._sorted.bounds[priority]
        return choose(request, pools, known, self._shared, self._affinity, bounds)

    def crowded(self, rule: MoveRule) -> dict[PoolName, int]:
        """Return the pools whose last jobs would be done much sooner in another one, and how many are to be
        moved.

        Raises:
          StoreUnavailable: The database is unavailable.
        """
        known = self._fresh_depths()
        found: dict[PoolName, int] = {}
        for model, pools in self.serving().items():
            if len(pools) > 1:
                bounds = self._sorted.bounds[Priority.BATCH]
                request = PlacementRequest(model=model)
                found |= crowded(request, pools, known, self._shared, bounds, rule)
        return found

    def is_served_beside(self, pool: PoolName, job: Placeable) -> bool:
        """Return whether another pool than this one can serve a job now, and has room for it.

        Raises:
          UnknownModel: Its model is configured no longer.
          StoreUnavailable: The database is unavailable.
        """
        decision = self.explain(self._request_of(job), job.priority)
        return any(row.exclusion is None and row.pool != pool for row in decision.table)

    def is_sooner_elsewhere(self, pool: PoolName, job: Placeable, rule: MoveRule) -> bool:
        """Return whether a job of a pool would be done much sooner in the pool that would be chosen now.
        If so, it counts there from now on.

        Raises:
          UnknownModel: Its model is configured no longer.
          StoreUnavailable: The database is unavailable.
        """
        request = self._request_of(job)
        pools, known = self._pools_of(request.model), self._fresh_depths()
        of_class = self._sorted.bounds[job.priority]
        # Its own pool may be full: it is in it.
        bounds = {each.name: of_class[each.name] for each in pools if each.name != pool}
        decision = choose(request, pools, known, self._shared, self._affinity, bounds)
        times = {row.pool: row.expected for row in decision.table if row.expected is not None}
        chosen, here = decision.pool, times.get(pool)
        if chosen is None or chosen == pool or here is None:
            return False
        if not rule.is_worth_it(here.seconds, times[chosen].seconds):
            return False
        with self._lock:
            self._depths[chosen] = self._depths.get(chosen, 0) + 1
            self._depths[pool] = self._depths.get(pool, 0) - 1
        return True

    def jobs_ahead(self, pool: PoolName) -> tuple[int, float]:
        """How many jobs a pool has, and how many of other pools its workers have.

        Raises:
          StoreUnavailable: The database is unavailable.
        """
        return max(0, self._fresh_depths().get(pool, 0)), self._shared.get(pool, 0.0)

    def read_depths(self) -> None:
        """Read anew how many jobs pools have.

        Raises:
          StoreUnavailable: The database is unavailable.
        """
        with self._lock:
            self._read_at = -FRESH_SECONDS
        self._fresh_depths()

    def room_of(self, pools: Sequence[PoolView]) -> int:
        """How many more jobs these pools take together, as of the last reading: of all tenants, of the most
        urgent class."""
        bounds = self._sorted.bounds[Priority.INTERACTIVE]
        return sum(max(0, bounds.get(pool.name, 0) - self._depths.get(pool.name, 0)) for pool in pools)

    def rooms_of_tenants(
        self, pools: Sequence[PoolView], tenants: Collection[TenantId], priority: Priority
    ) -> dict[TenantId, int]:
        """How many more jobs of a class these pools take of each tenant, if nobody else comes.

        Raises:
          StoreUnavailable: The database is unavailable.
        """
        bounds = self._sorted.bounds[priority]
        names = [pool.name for pool in pools if pool.name in bounds]
        held = self._store.read(shares, [share_name(name, tenant) for name in names for tenant in tenants])
        return {
            tenant: sum(
                room_of_tenant(bounds[name], self._depths.get(name, 0), held.get(share_name(name, tenant), 0))
                for name in names
            )
            for tenant in tenants
        }

    def _pools_of(self, model: ModelVersion) -> Sequence[PoolView]:
        """The pools of a model, of all its versions. They are sorted by model once for each fleet: decisions
        look at few of many."""
        known, pools = self._sorted, self._fleet.pools()
        if pools is not known.pools:
            by_model: dict[str, list[PoolView]] = {}
            for pool in pools:
                by_model.setdefault(pool.model, []).append(pool)
            taken = {pool.name: pool_bound(pool, self._settings) for pool in pools}
            bounds = {
                priority: MappingProxyType(
                    {name: bound_of_class(bound, priority) for name, bound in taken.items()}
                )
                for priority in Priority
            }
            known = self._sorted = _Sorted(pools, by_model, bounds)
        return known.by_model.get(model.name, ())

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
