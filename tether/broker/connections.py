"""Redis clients derived from the one that a program gave us, and which errors mean an outage."""

from __future__ import annotations

import re
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tether.errors import BrokerUnavailable

OUTAGE_ERRORS: tuple[type[Exception], ...] = (redis.ConnectionError, redis.TimeoutError)
"""Errors that pass: the same command can succeed once Redis or its network is back."""

SHORTEST_PATIENCE_SECONDS = 1.0
"""Least time limit of a socket over which a consumer blocks: Redis ends a wait up to 0.1 s late."""

_REFUSALS = re.compile(
    r"(?:^|[ -])(?:OOM|MISCONF|READONLY|NOREPLICAS|LOADING|CLUSTERDOWN|MASTERDOWN|TRYAGAIN|BUSY) "
)
"""Error codes of Redis for what it will do later; inside a script's error they stand further behind."""


class RefusedForNow(redis.ConnectionError):
    """Redis is there and takes no writes: out of memory or disk, a replica, without replicas, loading."""


class RedisUnavailable(BrokerUnavailable, redis.ConnectionError):
    """The same as what Dramatiq's own broker raises, for programs that catch that."""


def raise_if_refused(error: redis.ResponseError) -> None:
    """Tell a refusal that passes from an error that does not.

    Raises:
      RefusedForNow: The same command can succeed later.
    """
    if _REFUSALS.search(str(error)):
        raise RefusedForNow(str(error)) from error


def address_of(client: redis.Redis) -> str:
    """Where a client's server is, for a message: without user and password."""
    settings = client.connection_pool.connection_kwargs
    return str(settings.get("path") or f"{settings.get('host')}:{settings.get('port')}")


def without_retries(client: redis.Redis, **changes: Any) -> redis.Redis:
    """A client to the same server that sends each command once.

    A command whose reply was lost may have been carried out; one that hands out messages must not be
    repeated blindly. Pools of other kinds (Sentinel's) cannot be copied: the client itself is returned.
    """
    pool = client.connection_pool
    if type(pool) not in (redis.ConnectionPool, redis.BlockingConnectionPool):
        return client
    settings = {**pool.connection_kwargs, "retry": Retry(NoBackoff(), 0), **changes}
    return redis.Redis.from_pool(redis.ConnectionPool(connection_class=pool.connection_class, **settings))


def with_patience(settings: dict[str, Any]) -> dict[str, Any]:
    """Connection settings that leave a blocking command room to block."""
    limit = settings.get("socket_timeout", 5)
    return {**settings, "socket_timeout": max(float(limit), SHORTEST_PATIENCE_SECONDS)} if limit else settings


def longest_block(settings: dict[str, Any]) -> float:
    """Seconds for which a blocking command may wait before the socket's own time limit strikes."""
    limit = settings.get("socket_timeout", 5)
    return float(limit) / 2 if limit else float("inf")
