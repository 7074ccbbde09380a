"""Tries whether the database can be written, for whoever asks meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable

SECONDS_BETWEEN_TRIES = 1.0


class WriteProbe:
    """One try at a time, and what it found for all who ask within a second. Blocks; safe to use from many
    threads."""

    def __init__(self, can_write: Callable[[], bool], clock: Callable[[], float]) -> None:
        """
        Args:
          can_write: Tries it: that costs a transaction.
          clock: Seconds; monotonic.
        """
        self._can_write = can_write
        self._clock = clock
        self._lock = threading.Lock()
        self._tried_at: float | None = None
        self._could = False

    def __call__(self) -> bool:
        """Return whether it can be written, as of less than a second ago.

        Raises:
          StoreError: The database is unusable.
        """
        with self._lock:
            if self._tried_at is None or self._clock() - self._tried_at >= SECONDS_BETWEEN_TRIES:
                self._could = False
                try:
                    self._could = self._can_write()
                finally:
                    self._tried_at = self._clock()
            return self._could
