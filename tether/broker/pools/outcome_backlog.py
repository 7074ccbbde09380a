"""How many outcomes are not settled yet: whoever makes many at once waits for that."""

from __future__ import annotations

from typing import Any

import redis

from tether.broker.keys import Keys
from tether.broker.pools.outcomes import GROUP
from tether.broker.redis.connections import raise_if_refused


def unsettled_outcomes(client: redis.Redis, keys: Keys, limit: int) -> int:
    """Outcomes that nobody has read yet, at most ``limit`` of them, and those that are in somebody's hand.

    Raises:
      OUTAGE_ERRORS: Redis is away.
    """
    try:
        groups: Any = client.xinfo_groups(keys.outcomes)
    except redis.ResponseError as error:
        raise_if_refused(error)
        # There is no stream, or none of ours.
        return 0
    for group in groups:
        if group["name"] == GROUP.encode():
            last = group["last-delivered-id"].decode()
            unread: Any = client.xrange(keys.outcomes, min=f"({last}", count=limit)
            return int(group["pending"]) + len(unread)
    return min(limit, int(client.xlen(keys.outcomes)))
