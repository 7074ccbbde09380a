"""The beat thread: keeps the leases of attempts that go on, and learns which shall end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from tether.broker.connections import OUTAGE_ERRORS
from tether.broker.worker_port import Pulse, WorkerPort
from tether.errors import EpochChanged
from tether_workers.attempt import Ending
from tether_workers.attempts import Attempts
from tether_workers.throughput import Throughput

MOST_BEATS_A_LEASE = 3
"""Beats in the life of a lease: one that is lost must not lose the lease."""

LONGEST_INTERVAL_SECONDS = 1.0


class BeatThread:
    """Owns the thread ``tether-beat``, from :meth:`start` to :meth:`stop`."""

    def __init__(
        self,
        port: WorkerPort,
        attempts: Attempts,
        throughput: Throughput,
        *,
        lease: float,
        loading_limit: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
          lease: Seconds that an attempt may be silent.
          loading_limit: Seconds that waiting, loading or reading a prompt may last without a step.
          clock: Seconds.
        """
        self._port = port
        self._attempts = attempts
        self._throughput = throughput
        self._interval = min(LONGEST_INTERVAL_SECONDS, lease / MOST_BEATS_A_LEASE)
        self._loading_limit = loading_limit
        self._clock = clock
        self._log = structlog.stdlib.get_logger("tether.beat")
        self._is_away = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tether-beat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            self._throughput.sample(self._clock(), self._attempts.made)
            try:
                self.beat()
                self._is_away = False
            except OUTAGE_ERRORS as error:
                if not self._is_away:
                    self._log.warning("Beats cannot be sent. Going on.", error=str(error))
                self._is_away = True
            except Exception:
                self._log.exception("A beat failed. Going on.")

    def beat(self) -> None:
        """Send one beat for all attempts.

        Raises:
          OUTAGE_ERRORS: Redis is away.
        """
        alive = [attempt for attempt in self._attempts.all() if not attempt.dropped.is_set()]
        if not alive:
            return
        pulses = [
            Pulse(attempt.drawn.job_id, attempt.drawn.fence, attempt.beat(self._loading_limit))
            for attempt in alive
        ]
        try:
            answers = self._port.beat(pulses)
        except EpochChanged:
            for attempt in alive:
                attempt.end(Ending.DROP)
            return
        for attempt, answer in zip(alive, answers, strict=True):
            attempt.hear(answer)
