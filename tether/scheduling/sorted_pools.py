"""A fleet's pools by their models, and how many jobs each takes: made once for each fleet, since decisions
look at few of many. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Self

from tether.config.settings import SchedulingSettings
from tether.discovery.fleet.pool_views import PoolView
from tether.ids import PoolName
from tether.jobs import Priority
from tether.models.registry import ModelVersion
from tether.scheduling.pool_bounds import bound_of_class, pool_bound


@dataclass(frozen=True)
class SortedPools:
    """The pools of a fleet.

    Attributes:
      pools: All of them.
      by_model: The same by the names of their models.
      bounds: How many jobs each takes of each class, by its name.
    """

    pools: tuple[PoolView, ...] = ()
    by_model: Mapping[str, Sequence[PoolView]] = field(default_factory=lambda: MappingProxyType({}))
    bounds: Mapping[Priority, Mapping[PoolName, int]] = field(
        default_factory=lambda: MappingProxyType(dict.fromkeys(Priority, MappingProxyType({})))
    )

    @classmethod
    def of(cls, pools: tuple[PoolView, ...], settings: SchedulingSettings) -> Self:
        by_model: dict[str, list[PoolView]] = {}
        for pool in pools:
            by_model.setdefault(pool.model, []).append(pool)
        taken = {pool.name: pool_bound(pool, settings) for pool in pools}
        bounds = {
            priority: MappingProxyType(
                {name: bound_of_class(bound, priority) for name, bound in taken.items()}
            )
            for priority in Priority
        }
        return cls(pools, MappingProxyType(by_model), MappingProxyType(bounds))

    def of_model(self, model: ModelVersion) -> Sequence[PoolView]:
        """The pools of a model, of all its versions."""
        return self.by_model.get(model.name, ())
