"""How much more may be placed in Redis: it holds what is about to run, and the database all the rest."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import redis

from tether.broker.redis.connections import OUTAGE_ERRORS
from tether.jobs import Priority
from tether.telemetry import metrics
from tether.telemetry.logs import get_logger

WATERMARK = 0.8
"""Share of Redis's memory that is filled, where nothing else is configured."""

LANE_BYTES = 4_194_304
"""Bytes of one lane that wait in Redis, where nothing else is configured."""

READING_SECONDS = 0.1
"""For how long a reading of Redis's memory counts, together with what was placed since."""

FULL_SECONDS = 10.0
"""For how long Redis counts as full after it has refused a placement."""

MIN_LIFE_MS = 5_000
"""Least time for which Redis remembers what ended; a placement that comes later would run it again."""

RESERVE = 0.95
"""Share of Redis's memory up to which a lane that has next to nothing still gets a few jobs."""

FEW_JOBS = 4
"""So many jobs of a lane wait in Redis whatever else is in it, and whatever their size."""

LANE_JOB_BYTES = 1_024
"""What a job takes of its lane's bytes beside its body."""

CLASS_SHARES: Mapping[Priority, float] = {
    Priority.INTERACTIVE: 1.0,
    Priority.STANDARD: 7 / 8,
    Priority.BATCH: 3 / 4,
}
"""What jobs of each class may fill of what there is: what is more urgent never waits for what is less."""

_SUBMITTER_SHARE = 0.9
_EASY_SHARE, _TIGHT_SHARE = 0.25, 0.6
_JOB_BYTES = 2_048
_ALLOCATED_PER_BYTE = 1.25
_SUBMITTER_LANE_SHARE = 0.7
_SUBMITTER_FEW_JOBS = 2


@dataclass(frozen=True)
class MemoryUse:
    """A reading of Redis's memory.

    Attributes:
      used: Bytes that are in use.
      limit: Bytes that may be; 0 where there is no limit.
    """

    used: int
    limit: int


def memory_use(info: Mapping[str, Any]) -> MemoryUse:
    """The reading in the section ``memory`` of the answer to INFO.

    A Redis without ``maxmemory`` has half of its machine's memory, since it needs as much again while it
    saves.
    """
    limit = int(info.get("maxmemory", 0)) or int(info.get("total_system_memory", 0)) // 2
    return MemoryUse(int(info.get("used_memory", 0)), limit)


def room_left(use: MemoryUse, watermark: float, priority: Priority, *, for_submitter: bool) -> float:
    """Bytes that jobs of this class may take; infinite where there is no limit, and below 0 beyond it.

    What is more urgent may fill more, so that it never waits for what is less. Submitters stop before the
    relay does: while jobs wait in the outbox, new ones queue up behind them.
    """
    if not use.limit:
        return math.inf
    share = CLASS_SHARES[priority] * (_SUBMITTER_SHARE if for_submitter else 1.0)
    return use.limit * watermark * share - use.used


def life_of_ended(use: MemoryUse, watermark: float, life_ms: int) -> int:
    """For how long Redis remembers a job that has ended, in milliseconds: ``life_ms`` up to a quarter of what
    may be used before nothing more of the least urgent class is placed, and less and less from there on.

    It is short long before that, since what ended earlier stays: what has ended must not keep out what waits.
    """
    if not use.limit:
        return life_ms
    full = watermark * CLASS_SHARES[Priority.BATCH]
    easy, tight = full * _EASY_SHARE, full * _TIGHT_SHARE
    share = min(max((tight - use.used / use.limit) / (tight - easy), 0.0), 1.0)
    return min(life_ms, max(MIN_LIFE_MS, int(life_ms * share)))


def bytes_in_redis(body_bytes: int) -> int:
    """Estimate of what a waiting job takes in Redis, with its hash and its entry."""
    return _JOB_BYTES + int(max(body_bytes, 0) * _ALLOCATED_PER_BYTE)


def room_for_few(use: MemoryUse) -> float:
    """Bytes that the first few jobs of lanes may take, whatever fills Redis: jobs of a pool that nobody draws
    from, or what is not Tether's. Without it they would keep all others out."""
    return use.limit * RESERVE - use.used if use.limit else math.inf


def max_waiting(lane_bytes: int) -> int:
    """The greatest number of jobs of any size that wait in a lane."""
    return max(FEW_JOBS, lane_bytes // LANE_JOB_BYTES)


def max_waiting_at_submit(lane_bytes: int, body_bytes: int) -> int:
    """How many jobs may wait in a lane before one with a body of this size that its submitter places.

    It is less than what the relay fills a lane to: while the outbox owes something, new jobs queue up behind.
    """
    size = LANE_JOB_BYTES + max(body_bytes, 0)
    return max(_SUBMITTER_FEW_JOBS, int(lane_bytes * _SUBMITTER_LANE_SHARE) // size)


class RedisRoom:
    """Measures how much more may be placed. Thread-safe.

    A reading of Redis counts for a moment, and what this process places meanwhile is counted on top.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        watermark: float = WATERMARK,
        lane_bytes: int = LANE_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
          watermark: Share of Redis's memory that is filled, above 0 and at most 1.
          lane_bytes: See :func:`max_waiting`.
        """
        self.lane_bytes = lane_bytes
        self._client = client
        self._watermark = watermark
        self._clock = clock
        self._lock = threading.Lock()
        self._use = MemoryUse(0, 0)
        self._read_at = -math.inf
        self._placed = 0
        self._full_until = -math.inf
        self._is_unreadable = False
        self._log = get_logger("tether.broker")

    def left(self, priority: Priority) -> float:
        """Bytes that jobs of this class may take now.

        Raises:
          OUTAGE_ERRORS: Redis is unavailable.
        """
        use, placed = self._reading()
        return room_left(use, self._watermark, priority, for_submitter=False) - placed

    def left_at_submit(self, priority: Priority) -> float:
        """The same for who has just submitted them, who must not wait: as the last reading says, however old.
        Only where that says that there is none, there is a new one.

        Raises:
          OUTAGE_ERRORS: Redis is unavailable.
        """
        with self._lock:
            use, placed = self._use, self._placed
        left = room_left(use, self._watermark, priority, for_submitter=True) - placed
        if left > 0:
            return left
        use, placed = self._reading()
        return room_left(use, self._watermark, priority, for_submitter=True) - placed

    def refresh(self) -> None:
        """Read anew if the last reading is old: for :meth:`left_at_submit` of the next.

        Raises:
          OUTAGE_ERRORS: Redis is unavailable.
        """
        self._reading()

    def left_for_few(self) -> float:
        """Bytes that the first few jobs of lanes may take now, whatever their class.

        Raises:
          OUTAGE_ERRORS: Redis is unavailable.
        """
        use, placed = self._reading()
        return room_for_few(use) - placed

    def life_of_ended(self, life_ms: int) -> int:
        """See :func:`life_of_ended`.

        Raises:
          OUTAGE_ERRORS: Redis is unavailable.
        """
        use, placed = self._reading()
        if self._clock() < self._full_until:
            return min(life_ms, MIN_LIFE_MS)
        return life_of_ended(MemoryUse(use.used + placed, use.limit), self._watermark, life_ms)

    def note_placed(self, body_bytes: int) -> None:
        """A job with a body of this size was placed."""
        with self._lock:
            self._placed += bytes_in_redis(body_bytes)

    def note_refused(self) -> None:
        """Redis has refused a placement, since its memory is full."""
        self._full_until = self._clock() + FULL_SECONDS

    def _reading(self) -> tuple[MemoryUse, int]:
        """The last reading, and bytes that were placed since."""
        with self._lock:
            now = self._clock()
            if now - self._read_at < READING_SECONDS:
                return self._use, self._placed
            # Others go on with the old reading while this thread asks.
            self._read_at = now
            placed = self._placed
        use = self._read()
        for priority in Priority:
            left = room_left(use, self._watermark, priority, for_submitter=False)
            metrics.REDIS_ROOM.labels(priority=priority).set(left)
        with self._lock:
            self._use = use
            self._placed -= placed
            return use, self._placed

    def _read(self) -> MemoryUse:
        try:
            return memory_use(self._client.info("memory"))
        except OUTAGE_ERRORS:
            raise
        except (redis.RedisError, ValueError) as error:
            if not self._is_unreadable:
                self._is_unreadable = True
                self._log.warning(
                    "Redis does not tell how much memory it uses: allow the command INFO, or jobs are placed "
                    "until it is full.",
                    error=str(error),
                )
            return MemoryUse(0, 0)
