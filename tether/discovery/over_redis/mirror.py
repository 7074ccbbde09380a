"""Mirrors announcements that this process received from other sources to Redis."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple

from tether.broker.redis.connections import OUTAGE_ERRORS
from tether.clocks import monotonic_ms
from tether.discovery.announcements.presence import Presence, WorkerState
from tether.discovery.over_redis.redis_presence import MAX_PER_BATCH, RedisPresence
from tether.discovery.port import Accepted
from tether.discovery.topics import is_presence_topic
from tether.ids import WorkerId
from tether.loops import Loop, Outage
from tether.telemetry.logs import get_logger

REDIS = "redis"
"""The source that is not mirrored: what comes from it is there."""

MAX_KEPT = 65_536
"""Workers whose newest announcement is kept."""


class _Kept(NamedTuple):
    presence: Presence
    envelope: bytes
    ends_at: int


class FleetMirror:
    """Writes announcements to Redis as they arrive, in batches.

    It owns the thread ``tether-mirror``, from :meth:`start` to :meth:`stop`. While Redis is unavailable the
    newest announcement of each worker is kept. After that, and in each interval, announcements of live
    workers that Redis lacks are written again, which restores a Redis that lost its data. Several mirrors may
    run concurrently.

    Attributes:
      loop: That of the thread.
    """

    def __init__(
        self,
        presence: RedisPresence,
        clock: Callable[[], int] = monotonic_ms,
        *,
        interval_ms: int = 5_000,
    ) -> None:
        """
        Args:
          clock: Milliseconds of a monotonic clock.
          interval_ms: Time between two comparisons with what Redis has.
        """
        self._presence = presence
        self._clock = clock
        self._interval = interval_ms
        self._log = get_logger("tether.mirror")
        self._lock = threading.Lock()
        self._alive: dict[WorkerId, _Kept] = {}
        self._waiting: dict[WorkerId, _Kept] = {}
        self._is_full = False
        self._outage = Outage(
            OUTAGE_ERRORS,
            self._log,
            begins="The fleet cannot be mirrored to Redis. Continuing.",
            ends="The fleet is mirrored to Redis again.",
        )
        self._compare_at = clock() + interval_ms
        self.loop = Loop(
            "mirror", self._step, at_end=self._write_the_rest, outage=self._outage, log=self._log
        )

    def start(self) -> None:
        self.loop.start()

    def stop(self) -> None:
        """Write pending announcements, if Redis is available, and end the thread."""
        self.loop.stop()

    def offer(self, source: str, batch: Sequence[Accepted]) -> None:
        """Queue accepted announcements from the source of this name. Never waits for Redis."""
        now = self._clock()
        with self._lock:
            for presence, envelope, life_ms in batch:
                if not is_presence_topic(presence.topic):
                    # A part of what a worker announces would keep the whole of the same round out.
                    continue
                worker, former = presence.worker_id, self._alive.get(presence.worker_id)
                if former is not None and former.presence.order >= presence.order:
                    continue
                if former is None and not self._has_room(now):
                    continue
                kept = _Kept(presence, envelope, now + life_ms)
                self._alive[worker] = kept
                if source == REDIS:
                    self._waiting.pop(worker, None)
                else:
                    self._waiting[worker] = kept
            has_news = bool(self._waiting)
        if has_news:
            self.loop.wake()

    def _has_room(self, now: int) -> bool:
        if len(self._alive) < MAX_KEPT:
            return True
        if not self._is_full:
            self._is_full = True
            self._log.warning("Too many workers: some are not mirrored to Redis.", most=MAX_KEPT)
        return False

    def _step(self) -> float:
        if self._outage.is_on or self._clock() >= self._compare_at:
            self._compare()
            self._compare_at = self._clock() + self._interval
        self._write()
        return 0 if self._waiting else max(0, self._compare_at - self._clock()) / 1000

    def _write_the_rest(self) -> None:
        if self._outage.is_on:
            return
        try:
            while self._waiting:
                self._write()
        except OUTAGE_ERRORS as error:
            self._log.warning("Not all of the fleet was mirrored to Redis.", error=str(error))
        except Exception:
            self._log.exception("Mirroring the fleet failed.")

    def _compare(self) -> None:
        written = self._presence.orders()
        now = self._clock()
        with self._lock:
            self._alive = {worker: kept for worker, kept in self._alive.items() if kept.ends_at > now}
            self._is_full = self._is_full and len(self._alive) >= MAX_KEPT
            for worker, kept in self._alive.items():
                if worker not in written or written[worker] < kept.presence.order:
                    self._waiting[worker] = kept

    def _write(self) -> None:
        with self._lock:
            batch = list(islice(self._waiting.items(), MAX_PER_BATCH))
        now = self._clock()
        lives = [
            Accepted(kept.presence, kept.envelope, kept.ends_at - now)
            for _, kept in batch
            if kept.ends_at > now or kept.presence.state is WorkerState.STOPPED
        ]
        self._mirror(lives)
        self._forget(batch)

    def _mirror(self, lives: Sequence[Accepted]) -> None:
        """Write announcements. One that Redis does not take costs only itself."""
        try:
            if lives:
                self._presence.mirror(lives)
        except OUTAGE_ERRORS:
            raise
        except Exception:
            if len(lives) == 1:
                self._log.exception("A worker cannot be mirrored.", worker=lives[0].presence.worker_id)
                return
            for each in lives:
                self._mirror([each])

    def _forget(self, batch: Sequence[tuple[WorkerId, _Kept]]) -> None:
        with self._lock:
            for worker, kept in batch:
                if self._waiting.get(worker) is kept:
                    del self._waiting[worker]
