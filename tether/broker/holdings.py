"""What this process has taken from its queues and not yet given an answer for."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto


class Phase(Enum):
    """How far a held message has come."""

    WAITING = auto()
    """Taken from Redis; no actor has seen it."""
    RUNNING = auto()
    """An actor may have done some of its work."""
    ENDED = auto()
    """The attempt is over; only its acknowledgement is due."""
    LOST = auto()
    """This process was taken for dead, and others have the message now."""


@dataclass(frozen=True)
class Successor:
    """A message that takes a held one's place in the same step that ends it: a retry or a promotion."""

    queue_name: str
    redis_id: str
    data: bytes


@dataclass
class Holding:
    """One held message.

    Attributes:
      redis_id: The id of this copy of the message in Redis.
      queue_name: The queue it was taken from (``.DQ`` for a delayed one).
      crashes: Attempts that ended with the death of the worker process.
    """

    redis_id: str
    queue_name: str
    crashes: int = 0
    phase: Phase = Phase.WAITING
    successors: list[Successor] = field(default_factory=list)


class Holdings:
    """The held messages of one broker, by their Redis id. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_id: dict[str, Holding] = {}

    def add(self, holdings: Iterable[Holding]) -> None:
        with self._lock:
            self._by_id.update((holding.redis_id, holding) for holding in holdings)

    def get(self, redis_id: object) -> Holding | None:
        return self._by_id.get(redis_id) if isinstance(redis_id, str) else None

    def drop(self, redis_ids: Iterable[str]) -> None:
        with self._lock:
            for redis_id in redis_ids:
                self._by_id.pop(redis_id, None)

    def drop_queue(self, queue_name: str) -> None:
        """Forget all that was taken from ``queue_name``."""
        with self._lock:
            self._by_id = {
                redis_id: holding
                for redis_id, holding in self._by_id.items()
                if holding.queue_name != queue_name
            }

    def ids(self, queue_name: str) -> list[str]:
        with self._lock:
            return [redis_id for redis_id, holding in self._by_id.items() if holding.queue_name == queue_name]

    def lose_all(self) -> int:
        """Mark everything as others' now, and answer how much that was."""
        with self._lock:
            for holding in self._by_id.values():
                if holding.phase is Phase.WAITING:
                    holding.phase = Phase.LOST
            return len(self._by_id)
