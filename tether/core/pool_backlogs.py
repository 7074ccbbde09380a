"""What waits in pools, for whoever looks at them or is about to take a worker from one."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import redis

from tether.broker.keys import WAITING_CLASSES, Keys
from tether.broker.redis.connections import each_answer
from tether.core.fleet_reading import FleetReading, unavailable
from tether.core.last_workers import LastWorkerPool
from tether.discovery.fleet.fleet import Fleet, silent_in
from tether.errors import StoreError
from tether.ids import PoolName, TenantId, WorkerId
from tether.store.addresses import database_url
from tether.store.holds import depths
from tether.store.owed_counts import owed_in_pools
from tether.store.store import Store

if TYPE_CHECKING:
    from tether.config.settings import Settings

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
    counts: dict[PoolName, int] = {}
    for (pool, _), count in _count_lanes(client, keys, list(itertools.product(pools, WAITING_CLASSES))):
        counts[pool] = counts.get(pool, 0) + count
    return counts


def waiting_by_class(client: redis.Redis, keys: Keys, pool: PoolName) -> dict[str, int]:
    """How many jobs wait in a pool in Redis, by each of the classes of lanes.

    Raises:
      redis.RedisError: It cannot be asked.
    """
    counts = dict.fromkeys(WAITING_CLASSES, 0)
    for (_, waiting_class), count in _count_lanes(
        client, keys, list(itertools.product([pool], WAITING_CLASSES))
    ):
        counts[waiting_class] += count
    return counts


def _count_lanes(
    client: redis.Redis, keys: Keys, classes: Sequence[tuple[PoolName, str]]
) -> Iterator[tuple[tuple[PoolName, str], int]]:
    """The jobs in each lane of these classes of pools; what cannot be read is left out."""
    pipeline = client.pipeline(transaction=False)
    for pool, waiting_class in classes:
        pipeline.zrange(keys.pool_tenants(pool, waiting_class), 0, MAX_LANES)
    lanes = [
        (place, keys.pool_jobs(*place, TenantId(tenant.decode(errors="surrogateescape"))))
        for place, tenants in zip(classes, each_answer(pipeline), strict=True)
        if not isinstance(tenants, Exception)
        for tenant in tenants
    ][:MAX_LANES]
    pipeline = client.pipeline(transaction=False)
    for _, name in lanes:
        pipeline.llen(name.encode(errors="surrogateescape"))
    for (place, _), count in zip(lanes, each_answer(pipeline), strict=True):
        if isinstance(count, int) and count:
            yield place, count


def owed_jobs(store: Store, pools: Collection[PoolName] | None = None) -> dict[PoolName, int]:
    """How many jobs wait in the database for room in Redis, by pool.

    Args:
      pools: The only ones to look at; None is all with jobs.

    Raises:
      StoreError: The database cannot be asked.
    """
    names = store.read(depths).keys() if pools is None else pools
    return store.read(owed_in_pools, names)


def owed_where_known(settings: Settings, pools: Collection[PoolName] | None = None) -> dict[PoolName, int]:
    """The same by the database of these settings; nothing where there is none, or it cannot be asked."""
    file = database_url(settings.database.url).database
    if settings.is_default("database.url") and not (file and os.path.exists(file)):
        return {}
    try:
        with Store(settings.database.url).open(migrate=False) as store:
            return owed_jobs(store, pools)
    except StoreError:
        return {}


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


def last_worker_of(
    reading: FleetReading,
    worker: WorkerId,
    owed: Callable[[Collection[PoolName]], Mapping[PoolName, int]],
) -> tuple[LastWorkerPool, ...]:
    """The pools whose last worker this is.

    Args:
      owed: How many jobs wait in the database for room in Redis, of these pools.

    Raises:
      BrokerUnavailable: Redis does not tell.
    """
    try:
        waiting = waiting_jobs(reading.client, reading.keys)
    except redis.RedisError as error:
        raise unavailable(reading.client, error) from None
    fleet = reading.view.fleet
    member = fleet.members.get(worker)
    more = owed([pool for pool, _ in member.serves]) if member is not None else {}
    return last_worker_pools(fleet, worker, Counter(waiting) + Counter(more))
