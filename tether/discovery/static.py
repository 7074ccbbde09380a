"""Presence within one process: for tests, and for fleets that never change."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence

from tether.discovery.announcements.presence import Presence, WorkerState
from tether.discovery.port import MAX_AT_ONCE, Heard
from tether.ids import WorkerId


class StaticPresence:
    """Announcements that stay until they are replaced or their life is over."""

    def __init__(
        self,
        *,
        expiry_ms: int | None = None,
        clock: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000,
    ) -> None:
        """
        Args:
          expiry_ms: Life of an announcement; None is without end.
          clock: Milliseconds of a monotonic clock.
        """
        self._expiry = expiry_ms
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[WorkerId, tuple[Presence, bytes, int]] = {}
        self._subscriptions: list[queue.SimpleQueue[bytes]] = []

    def announce(self, envelope: bytes, presence: Presence) -> bool:
        with self._lock:
            known = self._known.get(presence.worker_id)
            if known is not None and presence.order <= known[0].order:
                return known[1] == envelope
            self._known[presence.worker_id] = (presence, envelope, self._clock())
            for subscription in self._subscriptions:
                subscription.put(envelope)
        return True

    def read_all(self) -> Sequence[Heard]:
        with self._lock:
            now = self._clock()
            heard = [
                Heard(envelope, None if self._expiry is None else since + self._expiry - now)
                for presence, envelope, since in self._known.values()
                if presence.state is not WorkerState.STOPPED
            ]
        return [one for one in heard if one.life_ms is None or one.life_ms > 0]

    def subscribe(self) -> _StaticSubscription:
        news: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        with self._lock:
            self._subscriptions.append(news)
        return _StaticSubscription(self, news)

    def _forget(self, news: queue.SimpleQueue[bytes]) -> None:
        with self._lock:
            self._subscriptions.remove(news)


class _StaticSubscription:
    def __init__(self, source: StaticPresence, news: queue.SimpleQueue[bytes]) -> None:
        self._source = source
        self._news = news

    def next(self, timeout: float) -> Sequence[Heard]:
        heard: list[Heard] = []
        with contextlib.suppress(queue.Empty):
            heard.append(Heard(self._news.get(timeout=timeout), None))
            while len(heard) < MAX_AT_ONCE:
                heard.append(Heard(self._news.get_nowait(), None))
        return heard

    def close(self) -> None:
        self._source._forget(self._news)
