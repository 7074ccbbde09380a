"""Whether a worker reaches the Redis from which it draws."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator

from tether.broker.redis.connections import OUTAGE_ERRORS, RefusedForNow

LOST_AFTER_SECONDS = 2.0
"""A worker whose calls were not answered for so long does not reach its queue."""


def _nobody() -> None:
    pass


class QueueContact:
    """Follows the calls of a worker port. Safe to use from many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
          clock: Seconds.
        """
        self._clock = clock
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._due: dict[int, float] = {}
        self._failing_since: float | None = None
        self._was_lost = False
        self._on_change: Callable[[], object] = _nobody

    def on_change(self, callback: Callable[[], object]) -> None:
        """Call ``callback``, which must be quick, when a call shows that contact was lost or is there again.
        A call that hangs shows nothing: ask :meth:`is_lost` from time to time."""
        self._on_change = callback

    def is_lost(self) -> bool:
        """Whether nothing was answered for too long. A worker that calls nothing has lost nothing."""
        with self._lock:
            return self._is_lost()

    @contextlib.contextmanager
    def call(self, wait_seconds: float = 0.0) -> Iterator[None]:
        """One call, whose answer may take so many seconds by itself. A refusal is an answer."""
        number = next(self._numbers)
        with self._lock:
            self._due[number] = self._clock() + wait_seconds
        has_failed = False
        try:
            yield
        except RefusedForNow:
            raise
        except OUTAGE_ERRORS:
            has_failed = True
            raise
        finally:
            self._end(number, has_failed=has_failed)

    def _end(self, number: int, *, has_failed: bool) -> None:
        with self._lock:
            due = self._due.pop(number)
            if not has_failed:
                self._failing_since = None
            elif self._failing_since is None:
                self._failing_since = min(due, self._clock())
            is_lost = self._is_lost()
            has_changed, self._was_lost = is_lost is not self._was_lost, is_lost
        if has_changed:
            self._on_change()

    def _is_lost(self) -> bool:
        since = [*self._due.values(), *([] if self._failing_since is None else [self._failing_since])]
        return self._clock() - min(since, default=float("inf")) >= LOST_AFTER_SECONDS
