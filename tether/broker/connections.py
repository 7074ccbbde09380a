"""Redis clients derived from the one that a program gave us, and which errors mean an outage."""

from __future__ import annotations

from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

OUTAGE_ERRORS: tuple[type[Exception], ...] = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
)
"""Errors that pass: the same command can succeed once Redis, its network or its memory is back."""


def without_retries(client: redis.Redis, **changes: Any) -> redis.Redis:
    """A client to the same server that sends each command once.

    A command whose reply was lost may have been carried out; one that hands out messages must not be
    repeated blindly. Pools of other kinds (Sentinel's) cannot be copied: the client itself is returned.
    """
    pool = client.connection_pool
    if type(pool) not in (redis.ConnectionPool, redis.BlockingConnectionPool):
        return client
    settings = {**pool.connection_kwargs, "retry": Retry(NoBackoff(), 0), **changes}
    return redis.Redis(
        connection_pool=redis.ConnectionPool(connection_class=pool.connection_class, **settings)
    )


def longest_block(client: redis.Redis) -> float:
    """Seconds for which a blocking command may wait before the socket's own time limit strikes."""
    limit = client.connection_pool.connection_kwargs.get("socket_timeout", 5)
    return float(limit) / 2 if limit else float("inf")
