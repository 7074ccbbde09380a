"""Renews the leases of attempts that go on, and learns which shall end: the thread ``tether-beat``.

Which ones are to end is Redis's word. When to ask for it is known beforehand of deadlines, and told of
cancellations; else it is asked for at regular times.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import structlog

from tether.broker.pools.worker_port import Pulse, WorkerPort
from tether.broker.redis.connections import OUTAGE_ERRORS
from tether.clocks import SharedClock
from tether.errors import EpochChanged
from tether.loops import Loop, Outage
from tether.threads import STOP_SECONDS
from tether_workers.attempts.attempt import Attempt, AttemptEnding
from tether_workers.attempts.running import Attempts

MIN_BEATS_PER_LEASE = 3
"""Beats in the life of a lease: one that is lost must not lose the lease."""

MAX_INTERVAL_SECONDS = 1.0

DEADLINE_PAUSE_SECONDS = 0.02
DEADLINE_PATIENCE_SECONDS = 0.1
"""Where a deadline has passed by this process's knowledge of Redis's clock and not by that itself, Redis is
asked again after a pause; after so long that knowledge is wrong, and only the next beat asks."""


class LeaseRenewal:
    """Owns the thread ``tether-beat``, from :meth:`start` to :meth:`stop`.

    Attributes:
      loop: That of the thread.
    """

    def __init__(
        self,
        port: WorkerPort,
        attempts: Attempts,
        *,
        lease: float,
        loading_limit: float,
        shared_clock: SharedClock,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
          lease: Seconds that an attempt may be silent.
          shared_clock: Redis's, by which deadlines go.
          loading_limit: Seconds that waiting, loading or reading a prompt may last without a step.
          clock: Seconds.
        """
        self._port = port
        self._attempts = attempts
        self._interval = interval = min(MAX_INTERVAL_SECONDS, lease / MIN_BEATS_PER_LEASE)
        self._beat_at = -math.inf
        self._is_asked = False
        self._shared_clock = shared_clock
        self._loading_limit = loading_limit
        self._clock = clock
        self._unrenewed: set[Attempt] = set()
        self._log = log = structlog.stdlib.get_logger("tether.beat")
        self.loop = Loop(
            "beat",
            self._step,
            interval=interval,
            delay=interval,
            max_pause_seconds=interval,
            outage=Outage(
                OUTAGE_ERRORS,
                log,
                begins="Beats cannot be sent. Continuing.",
                ends="Beats are sent again, or none are due.",
            ),
            log=log,
        )

    def start(self) -> None:
        self.loop.start()

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """End the thread, waiting for that at most ``timeout`` seconds."""
        self.loop.stop(timeout)

    def beat_now(self) -> None:
        """Beat before the next one is due, in the thread: an attempt may have been asked to end."""
        self._is_asked = True
        self.loop.wake()

    def note_begun(self, attempt: Attempt) -> None:
        """An attempt has begun: its deadline may come before the next beat."""
        if attempt.drawn.deadline:
            self.loop.wake()

    def _step(self) -> float:
        now, until_deadline = self._clock(), self._seconds_to_deadline()
        if self._is_asked or now >= self._beat_at or until_deadline <= 0:
            # What is asked for while the beat is under way, it may not find; one that fails found nothing.
            self._is_asked, self._beat_at = False, -math.inf
            self.beat()
            self._beat_at, until_deadline = now + self._interval, self._seconds_to_deadline()
        wait = max(self._beat_at - now, 0.0)
        if until_deadline > 0:
            return min(wait, until_deadline)
        if until_deadline > -DEADLINE_PATIENCE_SECONDS:
            return min(wait, DEADLINE_PAUSE_SECONDS)
        return wait

    def _seconds_to_deadline(self) -> float:
        """Until the next deadline of an attempt that was not told to end; less than 0 where it has passed."""
        deadlines = [
            attempt.drawn.deadline
            for attempt in self._attempts.all()
            if attempt.drawn.deadline and attempt.ending is None
        ]
        return (min(deadlines) - self._shared_clock.now_ms()) / 1000 if deadlines else math.inf

    def beat(self) -> None:
        """Send one beat for all attempts. While Redis is away, those past their deadline are told to end.

        Raises:
          OUTAGE_ERRORS: Redis is away.
        """
        try:
            self._beat()
        except OUTAGE_ERRORS:
            if self._shared_clock.was_read:
                now_ms = self._shared_clock.now_ms()
                for attempt in self._attempts.all():
                    if 0 < attempt.drawn.deadline <= now_ms:
                        attempt.end(AttemptEnding.EXPIRED)
            raise

    def _beat(self) -> None:
        alive = [attempt for attempt in self._attempts.all() if not attempt.dropped.is_set()]
        if not alive:
            return
        self._send(
            [
                (attempt, Pulse(attempt.drawn.job_id, attempt.drawn.fence, attempt.beat(self._loading_limit)))
                for attempt in alive
            ]
        )

    def _send(self, beats: Sequence[tuple[Attempt, Pulse]]) -> None:
        try:
            answers = self._port.beat([pulse for _, pulse in beats])
        except EpochChanged:
            for attempt, _ in beats:
                attempt.end(AttemptEnding.DROP)
        except OUTAGE_ERRORS:
            raise
        except Exception:
            if len(beats) == 1:
                # Its lease runs out, and the job is another worker's, or set aside there.
                self._warn_once(beats[0][0])
                return
            # One beat is refused in a way that is no answer: the others' leases must not run out by that.
            for beat in beats:
                self._send([beat])
        else:
            for (attempt, _), answer in zip(beats, answers, strict=True):
                attempt.hear(answer)

    def _warn_once(self, attempt: Attempt) -> None:
        self._unrenewed = {each for each in self._unrenewed if each in self._attempts.all()}
        if attempt not in self._unrenewed:
            self._unrenewed.add(attempt)
            self._log.exception("The lease of an attempt cannot be renewed.", job_id=attempt.drawn.job_id)
