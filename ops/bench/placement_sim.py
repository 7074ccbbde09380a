"""The placement simulation: jobs, gateways that see an old fleet, and workers that draw from their pools."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from placement_fleet import HOPS, Scenario, SimulatedJob, SimulatedWorker
from placement_policies import MakePolicy

from tether.discovery.fleet.pool_views import PoolView, WorkerGroup
from tether.ids import PoolName

ANNOUNCE_SECONDS = 5.0
"""How old what gateways know of workers may be."""


@dataclass(frozen=True)
class JobTimes:
    """Seconds from its submission until a job began to decode, and until its last token."""

    wait: float
    total: float


@dataclass
class _Worker:
    """A worker as it runs: its free slots, the models in its memory, and the one that it loads."""

    about: SimulatedWorker
    free: int
    resident: OrderedDict[str, float] = field(default_factory=OrderedDict)
    """Model → when it is loaded; the one that was used last is the last."""
    running: Counter[str] = field(default_factory=Counter)


class PlacementSimulation:
    """One scenario under one policy."""

    def __init__(self, scenario: Scenario, make_policy: MakePolicy, seed: int) -> None:
        self._scenario = scenario
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._depths: Counter[PoolName] = Counter()
        self._waiting: dict[PoolName, deque[SimulatedJob]] = {}
        self._workers = [_Worker(about, about.machines.slots) for about in scenario.workers]
        self._drawing: dict[PoolName, list[_Worker]] = {}
        for worker in self._workers:
            for pool in worker.about.pools.values():
                self._waiting.setdefault(pool, deque())
                self._drawing.setdefault(pool, []).append(worker)
        self._slots = {
            pool: sum(each.about.machines.slots for each in workers)
            for pool, workers in self._drawing.items()
        }
        self._groups: dict[PoolName, list[WorkerGroup]] = {pool: [] for pool in self._drawing}
        for worker in self._workers:
            group = WorkerGroup(tuple(worker.about.pools.values()), worker.about.machines.slots)
            for pool in group.pools:
                self._groups[pool].append(group)
        self._without_room: dict[str, deque[SimulatedJob]] = {}
        self._times: list[JobTimes] = []
        self._gateways = [_Gateway(self, region) for region in scenario.gateways]
        source = random.Random(seed)
        self._policies = [
            make_policy(scenario, gateway, lambda: self._now, source) for gateway in self._gateways
        ]

    @property
    def now(self) -> float:
        return self._now

    @property
    def depths(self) -> Mapping[PoolName, int]:
        return self._depths

    def run(self) -> list[JobTimes]:
        """Run until every job has ended."""
        for number, gateway in enumerate(self._gateways):
            gateway.look()
            self._at(ANNOUNCE_SECONDS * (number + 1) / len(self._gateways), self._announce(gateway))
        for job in self._scenario.jobs:
            self._at(job.at, partial(self._submit, job))
        while len(self._times) < len(self._scenario.jobs):
            self._now, _, event = heapq.heappop(self._events)
            event()
        return self._times

    def _at(self, at: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at, next(self._numbers), event))

    def _announce(self, gateway: _Gateway) -> Callable[[], None]:
        def look() -> None:
            gateway.look()
            self._at(self._now + ANNOUNCE_SECONDS, look)

        return look

    def _submit(self, job: SimulatedJob) -> None:
        if not self._place(job):
            self._without_room.setdefault(job.model.name, deque()).append(job)

    def _place(self, job: SimulatedJob) -> bool:
        """Give a job to a pool. Return whether one takes it."""
        policy = self._policies[job.gateway]
        pool = policy.choose(job)
        if pool is None:
            return False
        self._depths[pool] += 1
        policy.note_depth(pool, self._depths[pool])
        self._waiting[pool].append(job)
        for worker in sorted(self._drawing[pool], key=lambda each: job.model.name not in each.resident):
            if worker.free and self._draw(worker):
                break
        return True

    def _draw(self, worker: _Worker) -> bool:
        """Give a free slot the job that waits longest, of the models in memory first.

        Returns:
          Whether there was one.
        """
        candidates = [
            (model not in worker.resident, self._waiting[pool][0].at, model, pool)
            for model, pool in worker.about.pools.items()
            if self._waiting[pool] and (model in worker.resident or self._has_room(worker))
        ]
        if not candidates:
            return False
        _, _, model, pool = min(candidates)
        job = self._waiting[pool].popleft()
        ready = self._load(worker, model)
        worker.free -= 1
        worker.running[model] += 1
        begins = max(ready, self._now)
        ends = begins + job.tokens / worker.about.machines.rate
        way = 2 * 0.025 * HOPS[worker.about.region == self._scenario.gateways[job.gateway]]
        self._times.append(JobTimes(begins + way - job.at, ends + way - job.at))
        self._at(ends, lambda: self._end(worker, model, pool))
        return True

    def _end(self, worker: _Worker, model: str, pool: PoolName) -> None:
        worker.free += 1
        worker.running[model] -= 1
        self._depths[pool] -= 1
        while worker.free and self._draw(worker):
            pass
        waiting = self._without_room.get(model)
        while waiting and self._place(waiting[0]):
            waiting.popleft()

    def _has_room(self, worker: _Worker) -> bool:
        if len(worker.resident) < worker.about.machines.resident:
            return True
        return any(not worker.running[model] for model in worker.resident)

    def _load(self, worker: _Worker, model: str) -> float:
        """When the model is loaded; loading begins now where it is not in memory."""
        if model not in worker.resident:
            if len(worker.resident) >= worker.about.machines.resident:
                oldest = next(each for each in worker.resident if not worker.running[each])
                del worker.resident[oldest]
            worker.resident[model] = self._now + worker.about.machines.load_seconds
        worker.resident.move_to_end(model)
        return worker.resident[model]

    def views(self, region: str) -> Iterator[PoolView]:
        """The pools as workers announce them to a gateway of this region."""
        models = {model.name: model for model in self._scenario.models}
        for pool, workers in self._drawing.items():
            machines, there = workers[0].about.machines, workers[0].about.region
            model = next(models[name] for name, each in workers[0].about.pools.items() if each == pool)
            yield PoolView(
                groups=tuple(self._groups[pool]),
                name=pool,
                model=model.name,
                version=model.version,
                digest=model.digest,
                gpu_class=machines.gpu_class,
                region=there,
                workers=len(workers),
                slots=self._slots[pool],
                free=sum(each.free for each in workers),
                warm=any(each.resident.get(model.name, float("inf")) <= self._now for each in workers),
                slot_tokens_per_second=machines.rate,
                latency_hops=HOPS[there == region],
            )


class _Gateway:
    """One gateway, and the fleet as it saw it last."""

    def __init__(self, simulation: PlacementSimulation, region: str) -> None:
        self._simulation = simulation
        self._region = region
        self._pools: tuple[PoolView, ...] = ()

    def look(self) -> None:
        self._pools = tuple(self._simulation.views(self._region))

    def pools(self) -> tuple[PoolView, ...]:
        return self._pools

    def depths(self) -> Mapping[PoolName, int]:
        return self._simulation.depths
