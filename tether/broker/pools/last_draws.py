"""When pools were last drawn from."""

from __future__ import annotations

from collections.abc import Collection

import redis

from tether.broker.keys import Keys
from tether.broker.redis.connections import each_answer
from tether.ids import PoolName


def last_draws(client: redis.Redis, keys: Keys, pools: Collection[PoolName]) -> dict[PoolName, int]:
    """When a worker last drew from each of these pools, in milliseconds of Redis's clock.

    That is noted each 5 s. A pool from which nobody drew lately is left out, and so is what is not ours.

    Raises:
      OUTAGE_ERRORS: Redis is away.
    """
    names = sorted(pools)
    if not names:
        return {}
    pipeline = client.pipeline(transaction=False)
    for name in names:
        pipeline.zrange(keys.pool_drawing(name), 0, 0, desc=True, withscores=True)
    return {
        name: int(newest[0][1])
        for name, newest in zip(names, each_answer(pipeline), strict=True)
        if not isinstance(newest, Exception) and newest
    }
