"""The end of a program that left clients open."""

from __future__ import annotations

import atexit
import time
import weakref
from typing import Protocol

EXIT_SECONDS = 5.0
"""How long a program's end waits for the threads of all clients."""


class LeftOpen(Protocol):
    """What may be open then. Its close waits at most so many seconds, and may be repeated."""

    def close(self, timeout: float) -> None: ...


_connected: weakref.WeakSet[LeftOpen] = weakref.WeakSet()
_calling: weakref.WeakSet[LeftOpen] = weakref.WeakSet()


def close_connections_at_end(client: LeftOpen) -> None:
    """Close it at the program's end. Connections that are left open would complain."""
    _connected.add(client)


def close_calls_at_end(calls: LeftOpen) -> None:
    """Close it at the program's end, once no call waits for a connection any more."""
    _calling.add(calls)


@atexit.register
def _close_all() -> None:
    ends_at = time.monotonic() + EXIT_SECONDS
    for each in (*_connected, *_calling):
        each.close(max(ends_at - time.monotonic(), 0.0))
