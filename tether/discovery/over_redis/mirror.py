"""Keeps Redis up to date with what this process heard of workers another way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple

from tether.broker.connections import OUTAGE_ERRORS
from tether.discovery.announcements.presence import Presence, WorkerState
from tether.discovery.fleet.fleet_view import monotonic_ms
from tether.discovery.over_redis.redis_presence import MOST_IN_A_BATCH, RedisPresence
from tether.discovery.port import Accepted
from tether.telemetry.logs import get_logger

REDIS = "redis"
"""The source that is not mirrored: what comes from it is there."""

MOST_KEPT = 65_536
"""Workers whose newest announcement is kept."""

PAUSE_AFTER_OUTAGE_SECONDS = 0.5


class _Kept(NamedTuple):
    presence: Presence
    envelope: bytes
    ends_at: int


class FleetMirror:
    """Writes announcements to Redis as they come, several in one call.

    It owns the thread ``tether-mirror``, from :meth:`start` to :meth:`stop`. While Redis is away the newest
    announcement of each worker is kept. After that, and in each interval, all that lives and that Redis does
    not have is written again, so a Redis that lost its data has it back. Several mirrors do no harm.
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
        self._news = threading.Condition()
        self._alive: dict[str, _Kept] = {}
        self._waiting: dict[str, _Kept] = {}
        self._is_full = False
        self._is_away = False
        self._is_stopping = False
        self._compare_at = clock() + interval_ms
        self._thread = threading.Thread(target=self._run, name="tether-mirror", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, if Redis is there, and end the thread."""
        with self._news:
            self._is_stopping = True
            self._news.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def offer(self, source: str, batch: Sequence[Accepted]) -> None:
        """Announcements that counted, with the name of where they came from. Never waits for Redis."""
        now = self._clock()
        with self._news:
            for presence, envelope, life_ms in batch:
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
            self._news.notify_all()

    def _has_room(self, now: int) -> bool:
        if len(self._alive) < MOST_KEPT:
            return True
        if not self._is_full:
            self._is_full = True
            self._log.warning("There are too many workers: some are not mirrored to Redis.", most=MOST_KEPT)
        return False

    def _run(self) -> None:
        while not self._is_stopping:
            try:
                if self._is_away or self._clock() >= self._compare_at:
                    self._compare()
                    self._compare_at = self._clock() + self._interval
                self._write()
                self._is_away = False
            except OUTAGE_ERRORS as error:
                if not self._is_away:
                    self._log.warning("The fleet cannot be mirrored to Redis. Going on.", error=str(error))
                self._is_away = True
                self._pause(PAUSE_AFTER_OUTAGE_SECONDS)
            except Exception:
                self._log.exception("Mirroring the fleet failed. Going on.")
                self._pause(PAUSE_AFTER_OUTAGE_SECONDS)
            else:
                with self._news:
                    self._news.wait_for(
                        lambda: self._waiting or self._is_stopping,
                        max(0, self._compare_at - self._clock()) / 1000,
                    )
        if not self._is_away:
            self._write_the_rest()

    def _pause(self, seconds: float) -> None:
        with self._news:
            self._news.wait_for(lambda: self._is_stopping, seconds)

    def _write_the_rest(self) -> None:
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
        with self._news:
            self._alive = {worker: kept for worker, kept in self._alive.items() if kept.ends_at > now}
            self._is_full = self._is_full and len(self._alive) >= MOST_KEPT
            for worker, kept in self._alive.items():
                if worker not in written or written[worker] < kept.presence.order:
                    self._waiting[worker] = kept

    def _write(self) -> None:
        with self._news:
            batch = list(islice(self._waiting.items(), MOST_IN_A_BATCH))
        now = self._clock()
        lives = [
            Accepted(kept.presence, kept.envelope, kept.ends_at - now)
            for _, kept in batch
            if kept.ends_at > now or kept.presence.state is WorkerState.STOPPED
        ]
        try:
            if lives:
                self._presence.mirror(lives)
        except OUTAGE_ERRORS:
            raise
        except Exception:
            # Whatever is wrong with them, others shall not wait for them.
            self._forget(batch)
            raise
        self._forget(batch)

    def _forget(self, batch: Sequence[tuple[str, _Kept]]) -> None:
        with self._news:
            for worker, kept in batch:
                if self._waiting.get(worker) is kept:
                    del self._waiting[worker]
