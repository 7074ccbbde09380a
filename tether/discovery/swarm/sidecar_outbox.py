"""What is to be told to a sidecar: of each subject only the newest, so that it never grows for long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tether.discovery.swarm.frames import SwarmMessage


@dataclass(frozen=True)
class _Kept:
    topic: int
    envelope: bytes
    born_at: int


class Outbox:
    """Messages that are not sent yet, and those that a new sidecar must be told again. Not thread-safe."""

    def __init__(self, life_ms: int, clock: Callable[[], int]) -> None:
        """
        Args:
          life_ms: After that, a message is of no use.
          clock: Milliseconds of a monotonic clock.
        """
        self._life = life_ms
        self._clock = clock
        self._kept: dict[tuple[int, str], _Kept] = {}
        self._unsent: dict[tuple[int, str], _Kept] = {}
        self._look_at = clock() + life_ms

    def put(self, topic: int, subject: str, envelope: bytes) -> None:
        """
        Args:
          subject: Whose message it is; it takes the place of an older one of that subject.
        """
        kept = _Kept(topic, envelope, self._clock())
        if self._clock() >= self._look_at:
            self._forget_old()
        self._kept[topic, subject] = self._unsent[topic, subject] = kept

    def drop(self, topic: int) -> None:
        """Forget everything that is for a topic."""
        self._kept = {key: kept for key, kept in self._kept.items() if kept.topic != topic}
        self._unsent = {key: kept for key, kept in self._unsent.items() if kept.topic != topic}

    def take(self) -> list[SwarmMessage]:
        """What is to be sent now."""
        now = self._clock()
        unsent, self._unsent = self._unsent, {}
        return [
            SwarmMessage(kept.topic, now - kept.born_at, kept.envelope)
            for kept in unsent.values()
            if now - kept.born_at < self._life
        ]

    def begin_anew(self) -> None:
        """Have everything that is still of use sent again."""
        self._forget_old()
        self._unsent = dict(self._kept)

    def __bool__(self) -> bool:
        return bool(self._unsent)

    def _forget_old(self) -> None:
        now = self._clock()
        self._look_at = now + self._life
        self._kept = {key: kept for key, kept in self._kept.items() if now - kept.born_at < self._life}
