"""Redis's clock, by which a whole Tether goes: read, followed, and compared with this machine's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import redis
import structlog

from tether.broker.redis.connections import OUTAGE_ERRORS, without_retries
from tether.clocks import ClockReading, SharedClock, wall_clock_ms
from tether.loops import IDLE, Loop, Outage
from tether.threads import STOP_SECONDS

READ_SECONDS = 5.0
"""How often the clock is read. Quartz clocks drift by less than a millisecond meanwhile."""

PATIENCE_SECONDS = 1.0

MAX_DIFFERENCE_MS = 2_000
"""How far a machine's clock may be off before that is told. Jobs do not go by it, but times in logs, signed
announcements and certificates do."""


def _monotonic_ms() -> float:
    return time.monotonic_ns() / 1_000_000


def read_clock(client: redis.Redis, monotonic: Callable[[], float] = _monotonic_ms) -> ClockReading:
    """Ask Redis what time it is.

    Raises:
      OUTAGE_ERRORS: It is unavailable.
    """
    asked_at = monotonic()
    answer: Any = client.time()
    answered_at = monotonic()
    seconds, microseconds = answer
    return ClockReading(seconds * 1000 + microseconds / 1000, asked_at, answered_at)


def host_difference_ms(reading: ClockReading, host_ms: int, now: float) -> int:
    """How far this machine's wall clock is ahead of Redis's, in milliseconds; 0 where that cannot be told.

    Args:
      host_ms: What the wall clock says now.
      now: The monotonic clock now, in milliseconds.
    """
    difference = host_ms - (now + reading.ahead_ms)
    return round(difference) if abs(difference) > reading.error_ms + 1 else 0


class RedisClockFollower:
    """Keeps a :class:`~tether.clocks.SharedClock` to Redis's. It logs by how much this machine's clock is
    off, again only where that has changed, and once where it is right again.

    It owns the thread ``tether-clock``, from :meth:`start` to :meth:`stop`, and its connection.
    """

    def __init__(
        self,
        client: redis.Redis,
        clock: SharedClock,
        log: structlog.stdlib.BoundLogger,
        *,
        host_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        """
        Args:
          client: Whose server's clock decides.
          clock: What follows it.
          host_ms: This machine's wall clock, in milliseconds since the epoch.
        """
        self._client = without_retries(
            client, socket_timeout=PATIENCE_SECONDS, socket_connect_timeout=PATIENCE_SECONDS
        )
        self._owns_client = self._client is not client
        self._clock = clock
        self._log = log
        self._host_ms = host_ms
        self._told_ms = 0
        self._loop = Loop(
            "clock",
            self.read,
            interval=READ_SECONDS,
            delay=READ_SECONDS,
            outage=Outage(
                OUTAGE_ERRORS,
                log,
                begins="Redis's clock cannot be read. Going on without.",
                ends="Redis's clock is read again.",
            ),
            log=log,
        )

    def start(self) -> None:
        """Read Redis's clock if it can be had now, and every :data:`READ_SECONDS` from then on."""
        try:
            self.read()
        except OUTAGE_ERRORS:
            self._log.info("Redis's clock cannot be read yet: this machine's counts until then.")
        self._loop.start()

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """End the thread, waiting for that at most ``timeout`` seconds, and close the connection."""
        self._loop.stop(timeout)
        if self._owns_client:
            self._client.close()

    def read(self) -> float:
        """Read Redis's clock once: the step of the loop.

        Raises:
          OUTAGE_ERRORS: It is unavailable; the clock goes on as before.
        """
        reading = read_clock(self._client)
        change = self._clock.follow(reading)
        if abs(change) > MAX_DIFFERENCE_MS:
            self._log.warning("Redis's clock was set.", by_ms=round(change))
        self._compare(host_difference_ms(reading, self._host_ms(), _monotonic_ms()))
        return IDLE

    def _compare(self, difference: int) -> None:
        if abs(difference) <= MAX_DIFFERENCE_MS:
            if self._told_ms:
                self._told_ms = 0
                self._log.info("This machine's clock agrees with Redis's again.")
        elif abs(difference - self._told_ms) > MAX_DIFFERENCE_MS:
            self._told_ms = difference
            self._log.warning(
                "This machine's clock differs from Redis's, which decides: synchronize both, as with NTP.",
                ahead_ms=difference,
            )
