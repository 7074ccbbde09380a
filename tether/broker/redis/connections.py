"""Redis clients derived from the one that a program gave us, and which errors mean an outage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tether.broker.redis.severing import make_severable
from tether.errors import BrokerUnavailable

OUTAGE_ERRORS: tuple[type[Exception], ...] = (redis.ConnectionError, redis.TimeoutError)
"""Errors that pass: the same command can succeed once Redis or its network is back."""

MIN_PATIENCE_SECONDS = 1.0
"""Least time limit of a socket over which a consumer blocks: Redis ends a wait up to 0.1 s late."""

_REFUSALS = re.compile(
    r"(?:^|[ -])(?:OOM|MISCONF|READONLY|NOREPLICAS|LOADING|CLUSTERDOWN|MASTERDOWN|TRYAGAIN|BUSY) "
)
"""Error codes of Redis for what it will do later; inside a script's error they stand further behind."""

# Where redis-py has a type for a code, it leaves the code out of the message. Derived types come first.
_REFUSAL_TYPES: Mapping[type[redis.ResponseError], str] = MappingProxyType(
    {
        redis.exceptions.OutOfMemoryError: "OOM",
        redis.exceptions.ReadOnlyError: "READONLY",
        redis.exceptions.MasterDownError: "MASTERDOWN",
        redis.exceptions.ClusterDownError: "CLUSTERDOWN",
        redis.exceptions.TryAgainError: "TRYAGAIN",
    }
)


class GracefulPool(redis.ConnectionPool):
    """Connections that nobody closes under a command that is in flight.

    redis-py's own pool also closes those in use: whoever reads a reply over one gets an ``AttributeError``.
    Here they are closed when they are returned.
    """

    _is_closed = False

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the idle connections; and those in use, if these are meant too, once they are returned."""
        self._is_closed = self._is_closed or inuse_connections
        super().disconnect(inuse_connections=False)

    def release(self, connection: Any) -> None:
        super().release(connection)
        if self._is_closed:
            super().disconnect(inuse_connections=False)


class RefusedForNow(redis.ConnectionError):
    """Redis is there and takes no writes: out of memory or disk, a replica, without replicas, loading."""


class RedisUnavailable(BrokerUnavailable, redis.ConnectionError):
    """The same as what Dramatiq's own broker raises, for programs that catch that."""


def raise_if_refused(error: redis.ResponseError) -> None:
    """Tell a refusal that passes from an error that does not.

    Raises:
      RefusedForNow: The same command can succeed later.
    """
    for kind, code in _REFUSAL_TYPES.items():
        if isinstance(error, kind):
            raise RefusedForNow(f"{code} {error}") from error
    if _REFUSALS.search(str(error)):
        raise RefusedForNow(str(error)) from error


class RefusalClient(redis.Redis):
    """A client whose single commands raise :class:`RefusedForNow` where Redis will do them later."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Like redis-py's own.

        Raises:
          OUTAGE_ERRORS: Redis is unavailable, or refuses the command for now.
          redis.ResponseError: It failed.
        """
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except redis.ResponseError as error:
            raise_if_refused(error)
            raise


def connect(url: str, **settings: Any) -> redis.Redis:
    """Return a client that any thread may close while others use it: their commands still get their replies.

    Args:
      url: The server's address, as redis-py takes it.
      settings: Further settings of its connections.
    """
    pool = GracefulPool.from_url(url, **settings)
    make_severable(pool)
    return RefusalClient.from_pool(pool)


def each_answer(pipeline: Any) -> list[Any]:
    """Execute a client's pipeline, and return an error in the place of each command that failed.

    Raises:
      OUTAGE_ERRORS: Redis is unavailable, or refuses commands for now.
    """
    answers: list[Any] = pipeline.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, OUTAGE_ERRORS):
            raise answer
        if isinstance(answer, redis.ResponseError):
            raise_if_refused(answer)
    return answers


def is_wrong_type(error: Exception) -> bool:
    """Whether a command met a key of another type: nobody but that key is at fault."""
    return isinstance(error, redis.ResponseError) and "WRONGTYPE" in str(error)


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
    if type(pool) not in (redis.ConnectionPool, redis.BlockingConnectionPool, GracefulPool):
        return client
    settings = {**pool.connection_kwargs, "retry": Retry(NoBackoff(), 0), **changes}
    return RefusalClient.from_pool(GracefulPool(connection_class=pool.connection_class, **settings))


def with_patience(settings: dict[str, Any]) -> dict[str, Any]:
    """Connection settings that leave a blocking command room to block."""
    limit = settings.get("socket_timeout", 5)
    return {**settings, "socket_timeout": max(float(limit), MIN_PATIENCE_SECONDS)} if limit else settings


def max_block_seconds(settings: dict[str, Any]) -> float:
    """Seconds for which a blocking command may wait before the socket's own time limit strikes."""
    limit = settings.get("socket_timeout", 5)
    return float(limit) / 2 if limit else float("inf")
