"""Connections to Redis that end at once where a process must stop and Redis does not answer.

A thread that waits for a reply waits until its socket's own time limit, and some then try again. A process
that has to be gone by a deadline severs all of its connections before that: who waits gets an error
immediately, and no new connection is made.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import threading
import weakref
from typing import Any

import redis


class _OpenSockets:
    """The sockets of this process's connections: there is one such set, as there is one end of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._severed_in = 0

    @property
    def is_severed(self) -> bool:
        return self._severed_in == os.getpid()

    def add(self, opened: socket.socket) -> None:
        with self._lock:
            self._sockets.add(opened)
        self.refuse_if_severed()

    def refuse_if_severed(self) -> None:
        if self.is_severed:
            raise redis.ConnectionError("this process is stopping, and Redis did not answer it in time")

    def sever(self) -> None:
        with self._lock:
            self._severed_in = os.getpid()
            open_sockets = list(self._sockets)
        for each in open_sockets:
            # A thread that reads from it wakes up. It closes it itself.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(each, socket.SHUT_RDWR)


_OPEN = _OpenSockets()


def sever_connections() -> None:
    """End all connections of this process to Redis, and let it make no more. It is for a process's end: there
    is no way back."""
    _OPEN.sever()


@functools.cache
def severable(kind: type[Any]) -> type[Any]:
    """A class of redis-py's connections whose connections :func:`sever_connections` ends."""
    if getattr(kind, "is_severable", False):
        return kind

    class Severable(kind):  # type: ignore[misc]
        is_severable = True

        def _connect(self) -> socket.socket:
            _OPEN.refuse_if_severed()
            opened: socket.socket = super()._connect()
            _OPEN.add(opened)
            return opened

    Severable.__name__ = Severable.__qualname__ = f"Severable{kind.__name__}"
    return Severable


def make_severable(pool: redis.ConnectionPool) -> None:
    """Let :func:`sever_connections` end all connections that a pool makes from now on."""
    pool.connection_class = severable(pool.connection_class)
