"""What places jobs in the simulation: Tether's own choice, and what others do. All see the same."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Protocol, cast

from placement_fleet import Scenario, SimulatedJob, placeable

from tether.config.settings import SchedulingSettings
from tether.discovery.fleet.pool_views import PoolView
from tether.ids import PoolName
from tether.models.registry import Registry
from tether.scheduling.pool_choice import PoolChoice
from tether.store.holds import depths


class Gateway(Protocol):
    """What a gateway knows: pools as they were announced, and the depths that it read or was told."""

    def pools(self) -> tuple[PoolView, ...]: ...

    def depths(self) -> Mapping[PoolName, int]: ...


class Policy(Protocol):
    """Places the jobs of one gateway."""

    def choose(self, job: SimulatedJob) -> PoolName | None: ...

    def note_depth(self, pool: PoolName, depth: int) -> None:
        """The claim on a pool has returned this depth."""
        ...


MakePolicy = Callable[[Scenario, Gateway, Callable[[], float], random.Random], Policy]


class TetherPolicy:
    """The product's own choice, with its defaults."""

    def __init__(
        self, scenario: Scenario, gateway: Gateway, clock: Callable[[], float], source: random.Random
    ) -> None:
        known: dict[object, Callable[[], object]] = {depths: lambda: dict(gateway.depths())}
        store = cast("Any", SimpleNamespace(read=lambda asked: known.get(asked, dict)()))
        self._choice = PoolChoice(
            gateway, Registry(scenario.models), SchedulingSettings(), store, clock=clock
        )

    def choose(self, job: SimulatedJob) -> PoolName | None:
        return self._choice.choose(placeable(job), is_new=True).pool

    def note_depth(self, pool: PoolName, depth: int) -> None:
        self._choice.depths.note(pool, depth)


class _Simple(ABC):
    """Chooses among the pools of the job's model; depths are as fresh as the last claim or reading."""

    def __init__(
        self, scenario: Scenario, gateway: Gateway, clock: Callable[[], float], source: random.Random
    ) -> None:
        self._gateway = gateway
        self._clock = clock
        self._source = source
        self._depths: dict[PoolName, int] = {}
        self._read_at = float("-inf")
        self._turns: dict[str, int] = {}

    def choose(self, job: SimulatedJob) -> PoolName:
        if self._clock() - self._read_at >= 1.0:
            self._read_at, self._depths = self._clock(), dict(self._gateway.depths())
        pool = self._pick(job, [each for each in self._gateway.pools() if each.model == job.model.name])
        self._depths[pool.name] = self._depth(pool) + 1
        return pool.name

    def note_depth(self, pool: PoolName, depth: int) -> None:
        self._depths[pool] = depth

    def _depth(self, pool: PoolView) -> int:
        return self._depths.get(pool.name, 0)

    @abstractmethod
    def _pick(self, job: SimulatedJob, pools: Sequence[PoolView]) -> PoolView:
        """One of these pools."""


class RandomPolicy(_Simple):
    """Any pool, by chance, those with more workers more often."""

    def _pick(self, job: SimulatedJob, pools: Sequence[PoolView]) -> PoolView:
        return self._source.choices(pools, [each.workers for each in pools])[0]


class RoundRobinPolicy(_Simple):
    """The pools of a model in turn."""

    def _pick(self, job: SimulatedJob, pools: Sequence[PoolView]) -> PoolView:
        turn = self._turns[job.model.name] = self._turns.get(job.model.name, -1) + 1
        return pools[turn % len(pools)]


class LeastLoadedPolicy(_Simple):
    """The pool with the fewest jobs for each slot."""

    def _pick(self, job: SimulatedJob, pools: Sequence[PoolView]) -> PoolView:
        return min(pools, key=lambda each: (self._depth(each) / each.slots, self._source.random()))


class MinMaxPolicy(_Simple):
    """Depth, scaled by the least and the greatest of the candidates, plus warmth, plus the same region."""

    def __init__(
        self, scenario: Scenario, gateway: Gateway, clock: Callable[[], float], source: random.Random
    ) -> None:
        super().__init__(scenario, gateway, clock, source)
        self._regions = scenario.gateways

    def _pick(self, job: SimulatedJob, pools: Sequence[PoolView]) -> PoolView:
        depths = [self._depth(each) / each.slots for each in pools]
        least, span = min(depths), max(depths) - min(depths)

        def score(number: int) -> float:
            pool = pools[number]
            depth = 1 - (depths[number] - least) / span if span else 1.0
            return depth + pool.warm + (pool.region == self._regions[job.gateway])

        return pools[max(range(len(pools)), key=lambda number: (score(number), -number))]


POLICIES: Mapping[str, MakePolicy] = {
    "Tether": TetherPolicy,
    "round robin": RoundRobinPolicy,
    "random": RandomPolicy,
    "least loaded": LeastLoadedPolicy,
    "weighted sum, min-max depth": MinMaxPolicy,
}
