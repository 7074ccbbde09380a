"""What a process knows of pools that are paused: what the database had a moment ago."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType

from tether.ids import PoolName
from tether.store.pool_pauses import pool_pauses
from tether.store.store import Store

FRESH_PAUSES_SECONDS = 1.0
"""Maximum age of what is known."""


class KnownPauses:
    """Reads the pauses at most once a second, however many jobs ask. Thread-safe."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        """
        Args:
          clock: Seconds of a monotonic clock.
        """
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._known: Mapping[PoolName, str] = MappingProxyType({})
        self._read_at: float | None = None

    def in_words(self) -> Mapping[PoolName, str]:
        """The pools that are paused, each with that and the reason in words.

        Raises:
          StoreUnavailable: The database is unavailable.
        """
        with self._lock:
            now = self._clock()
            if self._read_at is None:
                # Until they are known, nobody places anything.
                self._known = self._read()
                self._read_at = now
                return self._known
            if 0 <= now - self._read_at < FRESH_PAUSES_SECONDS:
                return self._known
            former, self._read_at = self._read_at, now
        try:
            known = self._read()
        except BaseException:
            with self._lock:
                # Whoever asks next reads again.
                self._read_at = former
            raise
        with self._lock:
            self._known = known
        return known

    def _read(self) -> Mapping[PoolName, str]:
        pauses = self._store.read(pool_pauses)
        return MappingProxyType({pool: pause.in_words for pool, pause in pauses.items()})
