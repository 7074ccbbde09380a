"""How long a call is tried again, and how long is waited between two tries."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tether.client.http.responses import Failure

RETRIES = "tether.client.retries"
"""The logger that tells at level DEBUG why a call is tried again: ``why``, and the answer's ``status``."""

_MAX_DOUBLINGS = 16


def _chance() -> float:
    # Loaded when used: most calls succeed at once.
    from random import random

    return random()


@dataclass(frozen=True)
class Pace:
    """How a client tries again. Times are seconds.

    Attributes:
      patience: How long after its beginning a call is still tried again.
      base: Longest wait after the first failure; it doubles with each further one.
      cap: Longest it becomes.
      clock: Monotonic.
      chance: Numbers in [0, 1).
      pause: Waits for so many seconds, or until the event is set.
    """

    patience: float = 30.0
    base: float = 0.1
    cap: float = 2.0
    clock: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = _chance
    pause: Callable[[threading.Event, float], object] = threading.Event.wait


def wait_after(failures: int, least: float, pace: Pace) -> float:
    """Seconds to wait: at least what was asked for, and a part of the backoff left to chance, so that clients
    that failed together do not come back together ("full jitter").

    Args:
      failures: How many there were in a row.
    """
    backoff = pace.base * 2.0 ** min(failures - 1, _MAX_DOUBLINGS)
    return least + pace.chance() * min(backoff, pace.cap)


class Patience:
    """That of one call."""

    def __init__(self, pace: Pace, pause: Callable[[float], object]) -> None:
        """
        Args:
          pause: Waits for so many seconds.
        """
        self._pace = pace
        self._pause = pause
        self._ends_at = pace.clock() + pace.patience
        self._failures = 0

    def wait(self, failure: Failure) -> bool:
        """Wait until the next try. Answers False, at once, where there shall be none."""
        left = self._ends_at - self._pace.clock()
        least = failure.error.retry_after or 0.0
        if not failure.may_retry or left <= 0 or least > left:
            return False
        self._failures += 1
        logging.getLogger(RETRIES).debug(
            "A call failed. Trying again.", extra={"why": str(failure.error), "status": failure.status}
        )
        self._pause(min(wait_after(self._failures, least, self._pace), left))
        return True
