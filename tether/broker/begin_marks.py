"""Marks in Redis which messages an actor has begun, without waiting for an answer."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import redis

from tether.broker.connections import OUTAGE_ERRORS
from tether.broker.keys import Keys


class BeginMarks:
    """Writes begin marks on one connection of its own.

    A mark must be with Redis before the actor can kill the process, and must not cost a round trip. The
    connection is told to send no replies (``CLIENT REPLY OFF``): what ``send`` handed to the kernel
    arrives even if the process is killed in the next instant. A mark lost to an outage makes a crash go
    uncounted, and nothing worse. The connection is closed by :meth:`close`.
    """

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._pool = client.connection_pool
        self._keys = keys
        self._lock = threading.Lock()
        self._connection: Any = None

    def mark(self, broker_id: str, queue_name: str, redis_id: str) -> None:
        """Say that an actor is about to see the message."""
        with self._lock:
            for fresh in (False, True):
                try:
                    if self._connection is None:
                        connection = self._pool.connection_class(**self._pool.connection_kwargs)
                        connection.connect()
                        connection.send_command("CLIENT", "REPLY", "OFF")
                        self._connection = connection
                    self._connection.send_command(
                        "SADD", self._keys.begun(broker_id, queue_name), redis_id, check_health=False
                    )
                    return
                except OUTAGE_ERRORS:
                    self._drop()
                    if fresh:
                        return

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.disconnect()

    def close(self) -> None:
        with self._lock:
            self._drop()
