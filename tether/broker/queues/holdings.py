"""What this process has taken from its queues and not yet given an answer for."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Self, cast

from dramatiq import Message


class HoldingPhase(Enum):
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
    """A message that is placed in the same step that ends a held one: a retry, a promotion, the next of a
    pipeline."""

    queue_name: str
    redis_id: str
    data: bytes


@dataclass(eq=False)
class Holding:
    """One delivery of one message to this process. Safe to use from many threads.

    Attributes:
      redis_id: The id of this copy of the message in Redis.
      queue_name: The queue it was taken from (``.DQ`` for a delayed one).
      broker_id: The name under which it is held; None for the broker's current one.
      crashes: Attempts that ended with the death of the worker process.
      phase: How far it has come.
      is_delayed: Whether it waits in the worker's memory until it is due.
    """

    redis_id: str
    queue_name: str
    broker_id: str | None = None
    crashes: int = 0
    phase: HoldingPhase = HoldingPhase.WAITING
    is_delayed: bool = False
    _successors: list[Successor] = field(default_factory=list)
    _answered: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def begin(self) -> bool:
        """Record that an actor is about to get the message. Return False if others have it now."""
        with self._lock:
            if self.phase is HoldingPhase.LOST:
                return False
            self.phase = HoldingPhase.RUNNING
            return True

    def end(self) -> None:
        """Note that the attempt is over."""
        with self._lock:
            if self.phase is not HoldingPhase.LOST:
                self.phase = HoldingPhase.ENDED

    def lose(self) -> None:
        """Note that others have the message now."""
        with self._lock:
            self.phase = HoldingPhase.LOST

    def follow(self, successor: Successor) -> bool:
        """Leave ``successor`` to be enqueued when this message is acknowledged.

        Return False while an actor runs, and after the acknowledgement: then it must be enqueued separately.
        """
        with self._lock:
            if self._answered or self.phase is HoldingPhase.RUNNING:
                return False
            self._successors.append(successor)
            return True

    def answer(self) -> tuple[Successor, ...]:
        """Take no more successors, and return those there are: the same ones each time it is called."""
        with self._lock:
            self._answered = True
            return tuple(self._successors)


class HeldMessage(Message[Any]):
    """A message as a consumer hands it out. Its copies stand for the same delivery.

    Attributes:
      holding: That delivery.
    """

    holding: Holding

    def bind(self, holding: Holding) -> Self:
        # The class is frozen; what binds it to its delivery is no field of the message.
        object.__setattr__(self, "holding", holding)
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return self.asdict() == other.asdict()

    __hash__ = Message.__hash__

    def copy(self, **attributes: Any) -> Self:
        copy = cast(Self, super().copy(**attributes))
        holding = holding_of(self)
        return copy if holding is None else copy.bind(holding)

    def __reduce__(self) -> tuple[Any, ...]:
        # In another process, or deeply copied, it stands for no delivery.
        return Message, tuple(self.asdict().values())


def holding_of(message: object) -> Holding | None:
    """The delivery that a message, its proxy or a copy of it stands for, where it is one of ours."""
    holding = getattr(message, "holding", None)
    return holding if isinstance(holding, Holding) else None


class Holdings:
    """The messages held under one broker id, by their Redis id. Safe to use from many threads.

    Attributes:
      broker_id: The name under which Redis knows who holds them.
    """

    def __init__(self, broker_id: str) -> None:
        self.broker_id = broker_id
        self._lock = threading.Lock()
        self._by_id: dict[str, Holding] = {}
        self._is_lost = False

    def add(self, holdings: Iterable[Holding]) -> None:
        with self._lock:
            for holding in holdings:
                if self._is_lost:
                    holding.lose()
                else:
                    self._by_id[holding.redis_id] = holding

    def drop(self, holdings: Iterable[Holding]) -> None:
        with self._lock:
            for holding in holdings:
                # The same message may have come again, as another delivery.
                if self._by_id.get(holding.redis_id) is holding:
                    del self._by_id[holding.redis_id]

    def drop_delayed(self, queue_name: str) -> None:
        """Forget what was taken from ``queue_name`` and waits to come due."""
        with self._lock:
            self._by_id = {
                redis_id: holding
                for redis_id, holding in self._by_id.items()
                if not (holding.is_delayed and holding.queue_name == queue_name)
            }

    def ids(self, queue_name: str) -> list[str]:
        with self._lock:
            return [redis_id for redis_id, holding in self._by_id.items() if holding.queue_name == queue_name]

    def lose_all(self) -> int:
        """Mark everything, and later additions, as lost to others, and return how many these are."""
        with self._lock:
            self._is_lost = True
            lost, self._by_id = self._by_id, {}
            for holding in lost.values():
                holding.lose()
        return len(lost)
