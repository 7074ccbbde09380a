"""What the orchestrator's loops are made from."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import redis
import structlog

from tether.broker.redis.connections import OUTAGE_ERRORS
from tether.core.control_plane import ControlPlane
from tether.errors import StoreUnavailable
from tether.loops import Outage


@runtime_checkable
class Lapses(Protocol):
    """A step that knows something which holds only as long as it runs."""

    def lapse(self) -> None:
        """Forget it: another orchestrator has the loop's lease. It raises nothing."""


PASSING_ERRORS: tuple[type[Exception], ...] = (*OUTAGE_ERRORS, StoreUnavailable)
"""Redis or the database is away: the step is done again when it is back."""


def core_outage(log: structlog.stdlib.BoundLogger, loop: str) -> Outage:
    """Of what the loops work on."""
    return Outage(
        PASSING_ERRORS,
        log,
        begins="Redis or the database is unavailable. Continuing.",
        ends="Redis and the database are back.",
        loop=loop,
    )


@dataclass(frozen=True)
class LoopContext:
    """What one orchestrator passes to the factory of a loop's step.

    Attributes:
      plane: The control plane, open.
      client: For blocking reads: it has no timeout.
      holder: A unique name of this process.
      now_ms: Milliseconds since the epoch.
      wake: Makes the loop of this name step now.
      closing: Closed once all loops have ended.
      short_of_room: Set while the loop of waiting jobs has some for which no pool has room: who ends jobs
        wakes it.
    """

    plane: ControlPlane
    client: redis.Redis
    holder: str
    now_ms: Callable[[], int]
    wake: Callable[[str], None]
    closing: ExitStack
    short_of_room: threading.Event = field(default_factory=threading.Event)
