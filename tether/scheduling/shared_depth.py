"""How many jobs of other pools a pool's workers have, where they draw from several. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tether.discovery.fleet.pool_views import PoolView, WorkerGroup
from tether.ids import PoolName


def shared_depths(pools: Iterable[PoolView], depths: Mapping[PoolName, int]) -> dict[PoolName, float]:
    """Return for each pool the jobs of other pools that its workers have; pools without any are left out.

    A pool's jobs are spread over its workers by their slots, so workers of ``slots`` that draw from the pools
    ``q`` have ``slots * sum(depth(q) / slots(q))`` jobs. That is a step for each group and each of its pools.

    Args:
      depths: Jobs in each pool that have not ended.
    """
    pools = tuple(pools)
    by_slot = {pool.name: depths.get(pool.name, 0) / max(pool.slots, 1) for pool in pools}
    sums: dict[WorkerGroup, float] = {}
    shared: dict[PoolName, float] = {}
    for pool in pools:
        total = 0.0
        for group in pool.groups:
            if group not in sums:
                sums[group] = sum(by_slot.get(name, 0.0) for name in group.pools)
            total += group.slots * (sums[group] - by_slot[pool.name])
        if total > 0:
            shared[pool.name] = total
    return shared
