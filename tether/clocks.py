"""The clocks that decisions are handed: those of this machine, and the one that decides for all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

SLEW = 0.1
"""What is set back is caught up with by going so much slower."""

MAX_SLEWED_MS = 900_000
"""A clock that is set back by more was wrong by so much that nothing is gained by going on with it."""


def wall_clock_ms() -> int:
    """Milliseconds since the epoch. It may be set back."""
    return time.time_ns() // 1_000_000


def boot_seconds() -> float:
    """Seconds since the machine was started, on Linux also those for which it slept (CLOCK_BOOTTIME,
    clock_gettime(2)). It is never set back."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def monotonic_ms() -> int:
    """Milliseconds since some moment of the past. It is never set back."""
    return time.monotonic_ns() // 1_000_000


@dataclass(frozen=True)
class ClockReading:
    """What another machine's clock said.

    Attributes:
      told_ms: Milliseconds since the epoch.
      asked_at, answered_at: When it was asked and when it had answered, by the monotonic clock here, in
        milliseconds. It said so at some moment in between.
    """

    told_ms: float
    asked_at: float
    answered_at: float

    @property
    def ahead_ms(self) -> float:
        """How far it is ahead of the monotonic clock here, if it took as long to ask as to answer."""
        return self.told_ms - (self.asked_at + self.answered_at) / 2

    @property
    def error_ms(self) -> float:
        """How far that may be wrong at most: half the round trip (RFC 5905, section 8)."""
        return (self.answered_at - self.asked_at) / 2


class SharedClock:
    """The clock that decides, as this process knows it: told by a reference, and carried on by the monotonic
    clock in between. Thread-safe.

    What becomes of this machine's wall clock does not matter to it once the reference was read: until then it
    is all that there is. It follows the reference forward at once. Where the reference is set back, it goes
    slower until that has caught up, so that what was to be in five seconds is not in ten minutes.
    """

    def __init__(
        self, *, host_ms: Callable[[], int] = wall_clock_ms, monotonic: Callable[[], int] = monotonic_ms
    ) -> None:
        """
        Args:
          host_ms: This machine's wall clock, in milliseconds since the epoch.
          monotonic: Its monotonic clock, in milliseconds.
        """
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._was_read = False
        now = monotonic()
        # (since when, how far ahead of the monotonic clock then, how far once all is caught up)
        self._course = (float(now), float(host_ms() - now), float(host_ms() - now))

    @property
    def was_read(self) -> bool:
        """Whether the reference has told it the time."""
        return self._was_read

    def now_ms(self) -> int:
        """Milliseconds since the epoch. It goes back only where it has to be set back by more than
        :data:`MAX_SLEWED_MS`, or when the reference is read for the first time."""
        now = self._monotonic()
        return int(now + self._ahead_at(now))

    def _ahead_at(self, now: float) -> float:
        since, ahead, target = self._course
        return max(ahead - (now - since) * SLEW, target) if ahead > target else target

    def follow(self, reading: ClockReading) -> float:
        """Go by what the reference said.

        Returns:
          By how many milliseconds it was set since it was read before; 0 where that may be an error of
          measurement, and after the first reading.
        """
        with self._lock:
            now = float(self._monotonic())
            target = self._course[2]
            change = reading.ahead_ms - target
            if self._was_read and abs(change) <= reading.error_ms + 1:
                # Within what the measurement cannot tell apart: a steady clock is worth more.
                return 0.0
            is_first, self._was_read = not self._was_read, True
            ahead = reading.ahead_ms if is_first else self._ahead_at(now)
            if ahead - reading.ahead_ms > MAX_SLEWED_MS:
                ahead = reading.ahead_ms
            self._course = (now, ahead, reading.ahead_ms)
            return 0.0 if is_first else change
