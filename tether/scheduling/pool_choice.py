"""The choice of a job's pool, by the current fleet and the depths that are claimed in the database."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from tether.config.settings import SchedulingSettings
from tether.discovery.fleet.pool_views import PoolView
from tether.envelopes import Placeable
from tether.explanations import Explanation
from tether.ids import PoolName, TenantId
from tether.jobs import JobRequest, Priority
from tether.models.registry import ModelVersion, Registry
from tether.scheduling.affinity import Affinity, PlacementDecision, can_serve, choose
from tether.scheduling.breaker_passes import BreakerPasses, first_shut
from tether.scheduling.filters import PlacementRequest, ShutBreaker, Unfit, exclusion_of
from tether.scheduling.full_pools import FullPools
from tether.scheduling.kept_decisions import ChosenPools, kept_decision
from tether.scheduling.known_breakers import KnownBreakers
from tether.scheduling.known_depths import KnownDepths, SeesPools
from tether.scheduling.known_pauses import KnownPauses
from tether.scheduling.known_policies import KnownPolicies
from tether.scheduling.placement_facts import PlacementFacts
from tether.scheduling.placement_requests import why_unplaced
from tether.scheduling.relief import MoveRule, crowded
from tether.scheduling.scorer_plugins import load_scorers
from tether.scheduling.sorted_pools import SortedPools
from tether.store.capacity import Claim, has_room, room_of_tenant, share_name
from tether.store.decision_texts import explanation_of
from tether.store.decisions import Decision
from tether.store.holds import shares
from tether.store.store import Store
from tether.telemetry.logs import get_logger

TRY_SECONDS = 10.0
"""Between two jobs for a pool whose workers are all held back, where others can serve them. Without any,
nothing would show that they work again."""


@dataclass(frozen=True)
class FullPool:
    """A pool that could serve a job, and takes no more.

    Attributes:
      request: What the job needs.
      of_other_pools: Jobs of other pools that its workers have.
    """

    request: PlacementRequest
    view: PoolView
    of_other_pools: float


class PoolChoice:
    """Filters and scores pools for jobs. Thread-safe.

    Depths are returned by the claims in the database, so that several gateways do not all choose the pool
    that was empty a moment ago.

    Attributes:
      registry: The configured models.
      pauses: Pools that get no jobs.
      policies: What tenants may do.
      depths: How many jobs pools have.
      full: Pools that are passed over for new jobs, since they were found full.
    """

    def __init__(
        self,
        fleet: SeesPools,
        registry: Registry,
        settings: SchedulingSettings,
        store: Store,
        *,
        clock: Callable[[], float] = time.monotonic,
        breakers: KnownBreakers | None = None,
    ) -> None:
        self._fleet = fleet
        self.registry = registry
        self._settings = settings
        self._affinity = Affinity.of(settings, load_scorers())
        self._store = store
        self._clock = clock
        self._log = get_logger("tether.scheduling")
        self.pauses = KnownPauses(store, clock)
        self.policies = KnownPolicies(store, clock)
        self._passes = BreakerPasses(breakers)
        self._facts = PlacementFacts(registry, self.pauses, self.policies, self._passes)
        self.depths = KnownDepths(fleet, store, clock)
        self.full = FullPools(clock)
        self._tried_at: dict[PoolName, float] = {}
        self._sorted = SortedPools()

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
        request = self._facts.of_job(job, avoid=avoid, moved_to=moved_to)
        if is_new:
            request = self._as_new(request)
        decision = self._passes.decide(
            request, job, self._seen().of_model(request.model), lambda one: self.explain(one, job.priority)
        )
        pool = decision.pool
        if pool is not None:
            if pool in request.may_try:
                self._tried_at[pool] = self._clock()
            # Until its claim is known: of many jobs at once, not all go to the pool that is empty now.
            self.depths.add(pool, 1)
        return decision

    def chosen_pools(self, decision: PlacementDecision, priority: Priority, now_ms: int) -> ChosenPools:
        """Return the pools that can serve a job of a class, and what is kept of the choice.

        Args:
          now_ms: When it was made, in milliseconds since the epoch.
        """
        bounds = self._sorted.bounds[priority]
        able = (row.pool for row in decision.table if row.exclusion is None)
        claims = tuple(Claim(name, bounds[name]) for name in able if name in bounds)
        is_shut = not claims and any(
            row.exclusion is not None and row.exclusion.is_breaker for row in decision.table
        )
        return ChosenPools(claims, self._kept(decision, now_ms), decision.is_full, is_shut)

    def _kept(self, decision: PlacementDecision, now_ms: int) -> Decision | None:
        """None where it cannot be written, which is no reason to place no job."""
        try:
            return kept_decision(decision, self._affinity, now_ms)
        except (ValueError, OverflowError) as error:
            # Names and numbers come from workers' announcements.
            self._log.warning("Why a job was placed where it was is not kept.", error=str(error))
            return None

    def explanation(self, job: Placeable) -> Explanation:
        """Return what would be chosen now for a job that was never placed, and why. Nothing is claimed.

        Raises:
          UnknownModel: Its model is configured no longer.
          StoreUnavailable: The database is unavailable.
          ValueError, OverflowError: A pool has names or numbers that cannot be told.
        """
        request = self._with_full(self._as_new(self._facts.of_job(job)), job)
        request = replace(request, breakers=self._passes.shut_for(job.tenant_id))
        decision = self.explain(request, job.priority)
        # By way of the text that would be kept: it says the same before and after.
        return explanation_of(kept_decision(decision, self._affinity, 0).choice, decision.pool)

    def _as_new(self, request: PlacementRequest) -> PlacementRequest:
        if full := self.full.of(request.tenant):
            request = replace(request, full=full)
        may_try = self._may_try(self._seen().of_model(request.model), request.tenant)
        return replace(request, may_try=may_try) if may_try else request

    def _with_full(self, request: PlacementRequest, job: Placeable) -> PlacementRequest:
        # Who hands a job over learns it of the claim. Where nothing is claimed the counters have to tell.
        seen, held = self._seen(), self.depths.fresh().jobs
        of_class = seen.bounds[job.priority]
        names = {pool.name: share_name(pool.name, job.tenant_id) for pool in seen.of_model(request.model)}
        of_tenant = self._store.read(shares, list(names.values()))
        full = {
            name
            for name, share in names.items()
            if not has_room(of_class[name], held.get(name, 0), of_tenant.get(share, 0))
        }
        return replace(request, full=request.full | full)

    def _may_try(self, pools: Sequence[PoolView], tenant: TenantId | None) -> frozenset[PoolName]:
        held = [pool.name for pool in pools if pool.may_try and pool.able(tenant) == 0]
        if not held:
            return frozenset()
        now = self._clock()
        return frozenset(name for name in held if now - self._tried_at.get(name, -TRY_SECONDS) >= TRY_SECONDS)

    def is_served(self, request: JobRequest, tenant: TenantId) -> bool:
        """Return whether a pool can serve a job now."""
        asked = self._facts.of_request(request, tenant)
        return can_serve(asked, self._seen().of_model(asked.model))

    def why_unserved(self, job: Placeable) -> str:
        """Return why no pool gets a job, in words; empty where one can, or there is no pool.

        Raises:
          UnknownModel: Its model is configured no longer.
          StoreUnavailable: The database is unavailable.
        """
        request = self._with_full(self._facts.of_job(job), job)
        return why_unplaced(self.explain(request, job.priority))

    def why_not_served(self, request: JobRequest, tenant: TenantId) -> str:
        """The same of a request that is no job yet.

        Raises:
          UnknownModel: No such model is configured.
          StoreUnavailable: The database is unavailable.
        """
        return why_unplaced(self.explain(self._facts.of_request(request, tenant), request.priority))

    def first_shut(self, request: JobRequest, tenant: TenantId) -> ShutBreaker | None:
        """The breaker that keeps a request from all pools which could serve it, and lets a job try the
        soonest. None where it is no breaker that keeps it.

        Raises:
          UnknownModel: No such model is configured.
          StoreUnavailable: The database is unavailable.
        """
        if not self.has_shut():
            return None
        asked = self._facts.of_request(request, tenant)
        return first_shut(self.explain(asked), asked, self._seen().of_model(asked.model))

    def has_shut(self) -> bool:
        """Whether a breaker is known that is not closed."""
        return bool(self._passes.shut())

    def serving(self) -> dict[ModelVersion, tuple[PoolView, ...]]:
        """The pools that can serve each model now; models that none can serve are left out."""
        found: dict[ModelVersion, tuple[PoolView, ...]] = {}
        paused, seen, shut = self.pauses.in_words(), self._seen(), self._passes.shut_for(None)
        for model in self.registry.models:
            request = PlacementRequest(model=model, paused=paused, breakers=shut)
            views = tuple(pool for pool in seen.of_model(model) if exclusion_of(request, pool) is None)
            if views:
                found[model] = views
        return found

    def serving_needs(self, names: Collection[str]) -> dict[ModelVersion, tuple[PoolView, ...]]:
        """The pools that can serve jobs of each of these models that take any version of it."""
        found: dict[ModelVersion, tuple[PoolView, ...]] = {}
        paused, seen, shut = self.pauses.in_words(), self._seen(), self._passes.shut_for(None)
        for model in self.registry.models:
            if model.name in names and (pools := seen.of_model(model)):
                request = PlacementRequest(model=model, any_version=True, paused=paused, breakers=shut)
                found[model] = tuple(pool for pool in pools if exclusion_of(request, pool) is None)
        return found

    def explain(self, request: PlacementRequest, priority: Priority = Priority.STANDARD) -> PlacementDecision:
        """Return the choice with the cost of each of the model's pools, or why it was excluded."""
        seen = self._seen()
        return self._decide(request, seen.of_model(request.model), seen.bounds[priority])

    def _decide(
        self, request: PlacementRequest, pools: Sequence[PoolView], bounds: Mapping[PoolName, int]
    ) -> PlacementDecision:
        jobs, shared = self.depths.fresh()
        return choose(request, pools, jobs, shared, self._affinity, bounds)

    def crowded(self, rule: MoveRule) -> dict[PoolName, int]:
        """Return the pools whose last jobs would be done much sooner in another one, and how many are to be
        moved.

        Raises:
          StoreUnavailable: The database is unavailable.
        """
        jobs, shared = self.depths.fresh()
        found: dict[PoolName, int] = {}
        for model, pools in self.serving().items():
            if len(pools) > 1:
                bounds = self._sorted.bounds[Priority.BATCH]
                request = PlacementRequest(model=model)
                found |= crowded(request, pools, jobs, shared, bounds, rule)
        return found

    def is_served_beside(self, pool: PoolName, job: Placeable) -> bool:
        """Return whether another pool than this one can serve a job now, and has room for it.

        Raises:
          UnknownModel: Its model is configured no longer.
          StoreUnavailable: The database is unavailable.
        """
        decision = self.explain(self._facts.of_job(job), job.priority)
        return any(row.exclusion is None and row.pool != pool for row in decision.table)

    def is_sooner_elsewhere(self, pool: PoolName, job: Placeable, rule: MoveRule) -> bool:
        """Return whether a job of a pool would be done much sooner in the pool that would be chosen now.
        If so, it counts there from now on.

        Raises:
          UnknownModel: Its model is configured no longer.
          StoreUnavailable: The database is unavailable.
        """
        request = self._facts.of_job(job)
        seen = self._seen()
        pools, of_class = seen.of_model(request.model), seen.bounds[job.priority]
        # Its own pool may be full: it is in it.
        bounds = {each.name: of_class[each.name] for each in pools if each.name != pool}
        decision = self._decide(request, pools, bounds)
        times = {row.pool: row.expected for row in decision.table if row.expected is not None}
        chosen, here = decision.pool, times.get(pool)
        if chosen is None or chosen == pool or here is None:
            return False
        if not rule.is_worth_it(here.seconds, times[chosen].seconds):
            return False
        self.depths.add(chosen, 1)
        self.depths.add(pool, -1)
        return True

    def jobs_ahead(self, pool: PoolName) -> tuple[int, float]:
        """How many jobs a pool has, and how many of other pools its workers have.

        Raises:
          StoreUnavailable: The database is unavailable.
        """
        jobs, shared = self.depths.fresh()
        return max(0, jobs.get(pool, 0)), shared.get(pool, 0.0)

    def full_pools(self, job: Placeable, decision: PlacementDecision) -> list[FullPool]:
        """Return the pools of a choice that could serve the job, and take no more.

        Raises:
          UnknownModel: Its model is configured no longer.
          StoreUnavailable: The database is unavailable.
        """
        names = {row.pool for row in decision.table if row.exclusion and row.exclusion.unfit is Unfit.FULL}
        request, seen, shared = self._facts.of_job(job), self._seen(), self.depths.last.shared
        return [
            FullPool(request, view, shared.get(view.name, 0.0))
            for view in seen.of_model(request.model)
            if view.name in names
        ]

    def room_of(self, pools: Sequence[PoolView]) -> int:
        """How many more jobs these pools take together, as of the last reading: of all tenants, of the most
        urgent class."""
        bounds = self._sorted.bounds[Priority.INTERACTIVE]
        jobs = self.depths.last.jobs
        return sum(max(0, bounds.get(pool.name, 0) - jobs.get(pool.name, 0)) for pool in pools)

    def rooms_of_tenants(
        self, pools: Sequence[PoolView], tenants: Collection[TenantId], priority: Priority
    ) -> dict[TenantId, int]:
        """How many more jobs of a class these pools take of each tenant, if nobody else comes.

        Raises:
          StoreUnavailable: The database is unavailable.
        """
        bounds = self._sorted.bounds[priority]
        names = [pool.name for pool in pools if pool.name in bounds]
        jobs = self.depths.last.jobs
        held = self._store.read(shares, [share_name(name, tenant) for name in names for tenant in tenants])
        return {
            tenant: sum(
                room_of_tenant(bounds[name], jobs.get(name, 0), held.get(share_name(name, tenant), 0))
                for name in names
            )
            for tenant in tenants
        }

    def _seen(self) -> SortedPools:
        known, pools = self._sorted, self._fleet.pools()
        if pools is not known.pools:
            known = self._sorted = SortedPools.of(pools, self._settings)
        return known
