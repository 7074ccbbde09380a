"""Jobs that were accepted, and a pool for them: what the orchestrator's loops ask."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from tether.discovery.fleet.pool_views import PoolView
from tether.envelopes import Placeable
from tether.errors import StoreUnavailable, UnknownModel
from tether.ids import JobId, PoolName, TenantId
from tether.jobs import Priority
from tether.models.registry import ModelVersion
from tether.scheduling.kept_decisions import ChosenPools
from tether.scheduling.pool_bounds import BATCH_AGE_MS
from tether.scheduling.pool_choice import PoolChoice
from tether.scheduling.relief import MoveRule
from tether.store.needs import needs_met_in
from tether.store.waiting_jobs import KeptModel, WaitingJob


class WaitingPlacement:
    """Says which jobs in the database pools can take, where each goes, and which would do better elsewhere.
    Thread-safe.

    All methods raise StoreUnavailable where the database is away.
    """

    def __init__(self, choice: PoolChoice, now_ms: Callable[[], int]) -> None:
        """
        Args:
          choice: Which pool can serve a job best.
          now_ms: Milliseconds since the epoch.
        """
        self._choice = choice
        self._now_ms = now_ms

    def choose_pools(self, jobs: Sequence[WaitingJob]) -> list[ChosenPools | Exception]:
        """A choice for each job that waits in the database; an error where choosing failed."""
        now_ms = self._now_ms()
        if not self._choice.has_shut():
            return [self._choose(waiting, now_ms) for waiting in jobs]
        # Of jobs that could show whether a model works again, one does that has failed the least.
        choices = {
            job.job_id: self._choose(job, now_ms) for job in sorted(jobs, key=lambda one: one.attempts)
        }
        return [choices[job.job_id] for job in jobs]

    def _choose(self, waiting: WaitingJob, now_ms: int) -> ChosenPools | Exception:
        job = waiting.job
        if waiting.is_late:
            job = replace(job, priority=Priority.INTERACTIVE)
        elif job.priority is Priority.BATCH and now_ms - waiting.due_at >= BATCH_AGE_MS:
            job = replace(job, priority=Priority.STANDARD)
        try:
            decision = self._choice.choose(job, avoid=waiting.avoided_pool, moved_to=waiting.moved_to)
        except UnknownModel:
            # It was known when the job was accepted: it waits until somebody configures it again.
            return ChosenPools(())
        except StoreUnavailable:
            raise
        except Exception as error:
            return error
        return self._choice.chosen_pools(decision, job.priority, now_ms)

    def served_models(self) -> list[KeptModel]:
        """The models that live workers serve now, as rows of jobs keep them."""
        return [kept for model in self._choice.serving() for kept in self._kept(model)]

    def served_needs(self, with_needs: Callable[[Collection[str]], Collection[str]]) -> list[KeptModel]:
        """The models that live workers serve to jobs with needs, once for all needs that a pool meets.

        Args:
          with_needs: Returns those of these models for which such jobs wait. There are many needs that pools
            meet, and mostly no such jobs.
        """
        most: dict[tuple[KeptModel, str], int] = {}
        wanted = with_needs({model.name for model in self._choice.registry.models})
        for model, pools in self._choice.serving_needs(wanted).items():
            for pool in pools:
                for needs, has_size in _needs_met(pool, model):
                    for kept in self._kept(model):
                        size = pool.vram if has_size else 0
                        most[kept, needs] = max(size, most.get((kept, needs), 0))
        return [kept._replace(needs=needs, vram=size) for (kept, needs), size in most.items()]

    def serving_pools(self) -> dict[KeptModel, tuple[PoolView, ...]]:
        """The pools that can serve a model now, by models as rows of jobs keep them."""
        return {kept: pools for model, pools in self._choice.serving().items() for kept in self._kept(model)}

    def read_depths(self) -> None:
        """Read anew how many jobs pools have."""
        self._choice.depths.read()

    def room_for(self, kept: KeptModel) -> int:
        """How many more jobs the pools of a model take that meet what such jobs need."""
        return self._choice.room_of(self._pools_of(kept))

    def rooms_of_tenants(
        self, kept: KeptModel, tenants: Collection[TenantId], priority: Priority
    ) -> dict[TenantId, int]:
        """How many more jobs of a class these pools take of each tenant, if nobody else comes."""
        return self._choice.rooms_of_tenants(self._pools_of(kept), tenants, priority)

    def crowded_pools(self, rule: MoveRule) -> dict[PoolName, int]:
        """The pools whose last jobs would be done much sooner elsewhere, and how many are to be moved."""
        return self._choice.crowded(rule)

    def done_sooner_elsewhere(self, pool: PoolName, jobs: Sequence[Placeable], rule: MoveRule) -> set[JobId]:
        """Those of these jobs of a pool that would be done much sooner in another that meets their needs."""
        return _fitting(jobs, lambda job: self._choice.is_sooner_elsewhere(pool, job, rule))

    def may_go_elsewhere(self, pool: PoolName, jobs: Sequence[Placeable]) -> set[JobId]:
        """Those of a pool's jobs that another pool can serve, and has room for."""
        return _fitting(jobs, lambda job: self._choice.is_served_beside(pool, job))

    def _kept(self, model: ModelVersion) -> list[KeptModel]:
        kept = [KeptModel(model.name, model.version)]
        # Rows of programs that kept no version mean the one that is configured first.
        if self._choice.registry.find(model.name) == model:
            kept.append(KeptModel(model.name, ""))
        return kept

    def _pools_of(self, kept: KeptModel) -> Sequence[PoolView]:
        name = f"{kept.model}@{kept.model_version}" if kept.model_version else kept.model
        try:
            model = self._choice.registry.find(name)
        except UnknownModel:
            return ()
        if not kept.needs:
            return self._choice.serving().get(model, ())
        pools = self._choice.serving_needs({model.name}).get(model, ())
        return [pool for pool in pools if any(needs == kept.needs for needs, _ in _needs_met(pool, model))]


def _needs_met(pool: PoolView, model: ModelVersion) -> Collection[tuple[str, bool]]:
    """See :func:`~tether.store.needs.needs_met_in`."""
    is_own_version = pool.digest == model.digest
    return list(
        needs_met_in(pool.region, pool.gpu_class, has_vram=pool.vram > 0, is_own_version=is_own_version)
    )


def _fitting(jobs: Sequence[Placeable], fits: Callable[[Placeable], bool]) -> set[JobId]:
    """Those of these jobs that fit, but for those that cannot be judged."""
    found: set[JobId] = set()
    for job in jobs:
        try:
            if fits(job):
                found.add(job.job_id)
        except StoreUnavailable:
            raise
        except Exception:
            # What cannot be judged stays where it is, and keeps no other: its model is configured no longer,
            # or a filter failed.
            continue
    return found
