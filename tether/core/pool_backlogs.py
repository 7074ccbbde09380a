"""What waits in pools, for whoever looks at them or is about to take a worker from one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import redis

from tether.broker.keys import WAITING_CLASSES, Keys
from tether.broker.redis.connections import each_answer
from tether.core.fleet_reading import FleetReading, unavailable
from tether.core.last_workers import LastWorkerPool
from tether.discovery.fleet.fleet import Fleet, silent_in
from tether.ids import PoolName, TenantId, WorkerId

MAX_POOLS = 256
MAX_LANES = 10_000
"""Lanes of pools that are counted; what is behind them is left out."""


def waiting_jobs(client: redis.Redis, keys: Keys) -> dict[PoolName, int]:
    """How many jobs wait in Redis, by pool; pools without any are left out.

    Raises:
      redis.RedisError: It cannot be asked, or holds what is not ours under the key of all pools.
    """
    named: Any = client.smembers(keys.pools)
    pools = sorted(PoolName(name.decode(errors="replace")) for name in named)[:MAX_POOLS]
    classes = list(itertools.product(pools, WAITING_CLASSES))
    pipeline = client.pipeline(transaction=False)
    for pool, waiting_class in classes:
        pipeline.zrange(keys.pool_tenants(pool, waiting_class), 0, MAX_LANES)
    lanes = [
        (pool, keys.pool_jobs(pool, waiting_class, TenantId(tenant.decode(errors="surrogateescape"))))
        for (pool, waiting_class), tenants in zip(classes, each_answer(pipeline), strict=True)
        if not isinstance(tenants, Exception)
        for tenant in tenants
    ][:MAX_LANES]
    pipeline = client.pipeline(transaction=False)
    for _, name in lanes:
        pipeline.llen(name.encode(errors="surrogateescape"))
    counts: dict[PoolName, int] = {}
    for (pool, _), count in zip(lanes, each_answer(pipeline), strict=True):
        if isinstance(count, int) and count:
            counts[pool] = counts.get(pool, 0) + count
    return counts


def pools_without_workers(fleet: Fleet, waiting: Mapping[PoolName, int]) -> dict[PoolName, int]:
    """The pools in which jobs wait and from which no live worker draws, by name."""
    return {pool: count for pool, count in sorted(waiting.items()) if not fleet.served.get(pool)}


def last_worker_pools(
    fleet: Fleet, worker: WorkerId, waiting: Mapping[PoolName, int]
) -> tuple[LastWorkerPool, ...]:
    """The pools that would have no worker without this one, by name."""
    member = fleet.members.get(worker)
    if member is None or worker in fleet.unroutable:
        return ()
    silent = silent_in(member, fleet.silent)
    others = {
        model.digest
        for other, one in fleet.members.items()
        if other != worker and other not in fleet.unroutable
        for pool, model in one.serves
        if pool not in silent_in(one, fleet.silent)
    }
    return tuple(
        LastWorkerPool(
            pool=pool,
            model=model.name,
            version=model.version,
            waiting=waiting.get(pool, 0),
            is_served_elsewhere=model.digest in others,
        )
        for pool, model in sorted(member.serves)
        if pool not in silent and fleet.served.get(pool) == 1
    )


def last_worker_of(reading: FleetReading, worker: WorkerId) -> tuple[LastWorkerPool, ...]:
    """The pools whose last worker this is.

    Raises:
      BrokerUnavailable: Redis does not tell.
    """
    try:
        waiting = waiting_jobs(reading.client, reading.keys)
    except redis.RedisError as error:
        raise unavailable(reading.client, error) from None
    return last_worker_pools(reading.view.fleet, worker, waiting)
