"""Dead messages of plain actors, straight from Redis."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tether.broker.dead_queues import DeadMessages
from tether.broker.redis.connections import OUTAGE_ERRORS, RefusedForNow
from tether.client.lifetime import Lifetime
from tether.core.control_plane import ControlPlane
from tether.dead_messages import (
    DeadMessage,
    DeadMessagePage,
    DeadMessagePurge,
    DeadMessageRetry,
    DeadQueue,
)
from tether.errors import BrokerUnavailable


class DirectDeadMessagePort:
    """See :class:`~tether.client.dead_message_port.DeadMessagePort`."""

    def __init__(self, plane: ControlPlane, lifetime: Lifetime) -> None:
        retention_ms = plane.settings.broker.dead_message_ttl
        self._messages = DeadMessages(plane.client, plane.keys, retention_ms=retention_ms)
        self._lifetime = lifetime

    def queues(self) -> list[DeadQueue]:
        with self._lifetime.call(), telling_of_redis():
            return self._messages.queues()

    def find(self, queue: str, cursor: str | None, limit: int, payloads: bool = False) -> DeadMessagePage:
        with self._lifetime.call(), telling_of_redis():
            return self._messages.find(queue, cursor, limit, payloads)

    def message(self, queue: str, retry_token: str) -> DeadMessage:
        with self._lifetime.call(), telling_of_redis():
            return self._messages.message(queue, retry_token)

    def retry(self, queue: str, retry_token: str, force: bool = False) -> DeadMessageRetry:
        with self._lifetime.call(), telling_of_redis():
            return self._messages.retry(queue, retry_token, force)

    def purge(
        self, queue: str, retry_token: str | None, died_before: int | None, limit: int
    ) -> DeadMessagePurge:
        with self._lifetime.call(), telling_of_redis():
            return self._messages.purge(queue, retry_token, died_before, limit)


@contextlib.contextmanager
def telling_of_redis() -> Iterator[None]:
    """Make errors of a Redis that is away, or takes no writes, those of Tether."""
    try:
        yield
    except RefusedForNow as error:
        raise BrokerUnavailable(
            f"Redis refuses the change for now ({error}): `tether doctor` says what it lacks; then try again"
        ) from error
    except OUTAGE_ERRORS as error:
        raise BrokerUnavailable(
            f"Redis does not answer ({type(error).__name__}), and dead messages are there alone: try again "
            "when it is back"
        ) from error
