"""Looks at the pools with jobs: who works for them, and whether others could."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from tether.broker.pools.last_draws import last_draws
from tether.broker.pools.pools import Pools
from tether.broker.pools.withdrawn_lanes import first_jobs
from tether.discovery.fleet.fleet import Fleet
from tether.discovery.fleet.liveness import MAX_SILENCE_MS, Evidence, last_seen_in, may_only_load
from tether.discovery.fleet.pool_views import PoolView
from tether.envelopes import Placeable
from tether.ids import JobId, PoolName, TenantId
from tether.scheduling.lost_pools import FleetLook, PoolLook
from tether.store.placements import models_of
from tether.store.pool_pauses import pool_pauses
from tether.store.store import Store
from tether.store.waiting_jobs import KeptModel

MAX_EVIDENCE_MS = 10_000
"""What workers were seen to do is not known any more if nobody could look for so long."""

MAX_ASKED = 32
"""Pools whose models are asked for in one step."""

MAX_MODELS = 1_024
"""Pools whose models are remembered."""


class SeesWorkers(Protocol):
    """The view of the fleet, as far as it is needed here."""

    @property
    def fleet(self) -> Fleet: ...

    @property
    def evidence(self) -> Evidence | None: ...

    def judge(self) -> None: ...


class KnowsModels(Protocol):
    """The scheduler, as far as it is needed here."""

    def served_models(self) -> list[KeptModel]:
        """The models that live workers serve now, as rows of jobs keep them."""

    def serving_pools(self) -> Mapping[KeptModel, Sequence[PoolView]]:
        """The pools that can serve a model now."""

    def may_go_elsewhere(self, pool: PoolName, jobs: Sequence[Placeable]) -> Collection[JobId]:
        """Those of a pool's jobs that another pool can serve."""


class _Loading(NamedTuple):
    """Pools with jobs whose workers only load.

    Attributes:
      loaded_elsewhere: Those whose model another pool has loaded that is drawn from.
      cold_elsewhere: Those that another pool could serve once it has loaded the model, and has no jobs that
        wait for that already.
    """

    pools: Collection[PoolName] = ()
    loaded_elsewhere: Collection[PoolName] = ()
    cold_elsewhere: Collection[PoolName] = ()


class LooksAtPools:
    """One thread uses it."""

    def __init__(
        self,
        store: Store,
        pools: Pools,
        view: SeesWorkers,
        models: KnowsModels,
        watches: Callable[[PoolName], bool] = lambda pool: True,
    ) -> None:
        """
        Args:
          watches: Whether the view has the workers of a pool; others are not looked at.
        """
        self._store = store
        self._pools = pools
        self._view = view
        self._scheduler = models
        self._watches = watches
        self._evidence: tuple[Evidence | None, int] = (None, 0)
        self._models: OrderedDict[PoolName, KeptModel] = OrderedDict()

    def look(self, at: int, depth: Mapping[PoolName, int]) -> FleetLook | None:
        """Look at all pools with jobs but those that are paused: what waits there stays. None where it is not
        known what workers did.

        Args:
          at: Milliseconds of a monotonic clock.
          depth: Jobs in pools that have not ended.
        """
        evidence = self._view.evidence
        if evidence is not self._evidence[0]:
            self._evidence = (evidence, at)
        if evidence is None or at - self._evidence[1] > MAX_EVIDENCE_MS:
            return None
        fleet = self._view.fleet
        with_jobs = self._pools.named() | {name for name, jobs in depth.items() if jobs > 0}
        names = {name for name in with_jobs if self._watches(name)}
        names -= self._store.read(pool_pauses).keys()
        absent = {name for name in names if fleet.served.get(name, 0) == 0}
        seen_ms = last_seen_in(absent, fleet.members, evidence) if absent else {}
        doubtful = may_only_load(names, fleet, evidence)
        models = self._models_of(absent | doubtful, fleet)
        served = frozenset(self._scheduler.served_models()) if absent else frozenset()
        serving = self._scheduler.serving_pools() if doubtful or fleet.held else {}
        loading = self._loading(doubtful, models, serving, evidence)
        held = _held(names, serving) if fleet.held else {}
        return FleetLook(
            at=at,
            steady_ms=max(0, evidence.now - evidence.resumed),
            pools={
                name: PoolLook(
                    workers=fleet.served.get(name, 0),
                    seen_ms=seen_ms.get(name),
                    is_served_elsewhere=name in absent and models.get(name) in served,
                    is_only_loading=name in loading.pools,
                    is_loaded_elsewhere=name in loading.loaded_elsewhere,
                    is_cold_elsewhere=name in loading.cold_elsewhere,
                    held_from=held.get(name, frozenset()),
                )
                for name in names
            },
        )

    def _loading(
        self,
        doubtful: Collection[PoolName],
        models: Mapping[PoolName, KeptModel],
        serving: Mapping[KeptModel, Sequence[PoolView]],
        evidence: Evidence,
    ) -> _Loading:
        """Which of these pools nobody draws from, and who could serve them else."""
        if not doubtful:
            return _Loading()
        others = {
            name: [view for view in serving.get(models[name], ()) if view.name != name]
            for name in doubtful
            if name in models
        }
        asked = {*doubtful, *(view.name for each in others.values() for view in each if view.warm)}
        drawn = {
            name
            for name, drawn_at in last_draws(self._pools.client, self._pools.keys, asked).items()
            if evidence.now - drawn_at < MAX_SILENCE_MS
        }
        loading = set(doubtful) - drawn
        return _Loading(
            loading,
            {n for n in loading if any(view.warm and view.name in drawn for view in others.get(n, ()))},
            {
                n
                for n in loading
                if any(not (view.warm or view.name in loading) for view in others.get(n, ()))
            },
        )

    def _models_of(self, names: Iterable[PoolName], fleet: Fleet) -> dict[PoolName, KeptModel]:
        """The models of these pools, as far as they are known by now."""
        announced = {
            pool: KeptModel(model.name, model.version)
            for member in fleet.members.values()
            for pool, model in member.serves
        }
        names = sorted(names)
        unknown = [name for name in names if name not in announced and name not in self._models][:MAX_ASKED]
        if unknown:
            jobs = first_jobs(self._pools, unknown)
            models = self._store.read(models_of, list(jobs.values()))
            for name, job_id in jobs.items():
                if job_id in models:
                    self._models[name] = models[job_id]
            while len(self._models) > MAX_MODELS:
                self._models.popitem(last=False)
        known = {**self._models, **announced}
        return {name: known[name] for name in names if name in known}


def _held(
    names: Collection[PoolName], serving: Mapping[KeptModel, Sequence[PoolView]]
) -> dict[PoolName, frozenset[TenantId | None]]:
    """By pool the tenants from whose jobs all its workers are held back, while another pool has some that are
    not; None among them is everybody."""
    found: dict[PoolName, frozenset[TenantId | None]] = {}
    for views in serving.values():
        for view in views:
            if view.name in names and (view.held or view.held_from):
                held_from = frozenset(
                    tenant
                    for tenant in (None, *view.held_from)
                    if view.able(tenant) <= 0 and any(other.able(tenant) > 0 for other in views)
                )
                if held_from:
                    found[view.name] = held_from
    return found
