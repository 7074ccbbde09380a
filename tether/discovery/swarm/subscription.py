"""What a reader has not read yet of the topics it follows."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from tether.discovery.port import Heard
from tether.discovery.swarm.frames import SwarmMessage

MAX_AT_ONCE = 1_024
FULL = 2_048
"""Messages that wait for a reader before the sidecar is asked to wait; it keeps only the newest of each.

A second's worth of a large fleet: with more, a reader that falls behind would read what has run out."""


class SwarmSubscription:
    """News of some topics, for one reading thread; filled by the transport's."""

    def __init__(
        self,
        life_ms: int,
        clock: Callable[[], int],
        on_room: Callable[[], None],
        on_close: Callable[[SwarmSubscription], None],
    ) -> None:
        """
        Args:
          life_ms: Of a message, from when it was made.
          clock: Milliseconds of a monotonic clock.
          on_room: Called when there is room again after it was full.
          on_close: Called when nothing shall be put any more.
        """
        self._life = life_ms
        self._clock = clock
        self._on_room = on_room
        self._on_close = on_close
        self._news = threading.Condition()
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._was_full = False

    @property
    def is_full(self) -> bool:
        return len(self._waiting) >= FULL

    def put(self, entries: Sequence[SwarmMessage]) -> None:
        now = self._clock()
        with self._news:
            self._waiting.extend((entry.envelope, now - entry.age) for entry in entries)
            self._was_full = self._was_full or self.is_full
            self._news.notify_all()

    def next(self, timeout: float) -> Sequence[Heard]:
        """See :class:`~tether.discovery.port.PresenceSubscription`."""
        with self._news:
            self._news.wait_for(lambda: self._waiting, timeout)
            now = self._clock()
            taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_AT_ONCE))]
            has_room = self._was_full and len(self._waiting) < FULL // 2
            if has_room:
                self._was_full = False
        if has_room:
            self._on_room()
        return [Heard(envelope, born_at + self._life - now) for envelope, born_at in taken]

    def close(self) -> None:
        self._on_close(self)
