"""What a draining worker does with its attempts: lets them end, and hands over the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from tether.broker.connections import OUTAGE_ERRORS
from tether.broker.worker_port import Growth, WorkerPort
from tether.errors import EpochChanged
from tether_workers.attempt import Attempt, Ending, Phase
from tether_workers.attempts import Attempts

HAND_OVER_SECONDS = 10.0
"""What handing over may take beyond the drain time; then what is left is given up, and its lease runs out."""

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 1.0
"""Between two looks at what nobody has begun, or Redis would not take; the pause doubles until then."""


class HandOver:
    """Owns the thread ``tether-drain``, from :meth:`start` until the attempts have ended or time is up."""

    def __init__(
        self,
        port: WorkerPort,
        attempts: Attempts,
        *,
        drain_time: float,
        hand_over_time: float = HAND_OVER_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
          drain_time: Seconds for which attempts that run may go on.
          hand_over_time: Seconds that handing over may take after that.
          clock: Seconds.
        """
        self._port = port
        self._attempts = attempts
        self._drain_time = drain_time
        self._hand_over_time = hand_over_time
        self._clock = clock
        self._log = structlog.stdlib.get_logger("tether.worker")
        # Those that no slot runs: whoever begins an attempt first has it.
        self._ours: dict[Attempt, None] = {}
        self._thread = threading.Thread(target=self._run, name="tether-drain", daemon=True)

    def start(self) -> None:
        """Begin. Nothing may be drawn any more."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the end."""
        self._thread.join()

    def _run(self) -> None:
        if self._hand_on(self._clock() + self._drain_time):
            return
        self._log.info("Handing over what still runs.", jobs=len(self._attempts.all()))
        self._attempts.end_all(Ending.RELEASE)
        if self._hand_on(self._clock() + self._hand_over_time):
            return
        self._log.warning(
            "Giving up what could not be handed over: others get it when its lease runs out.",
            jobs=len(self._attempts.all()),
        )
        self._attempts.end_all(Ending.DROP)
        for attempt in self._ours:
            self._attempts.forget(attempt.drawn.fence.draw_id)

    def _hand_on(self, until: float) -> bool:
        """Hand over what nobody runs, until all have ended. Answers False where they have not by then."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            self._release_unbegun()
            left = until - self._clock()
            if left <= 0:
                return self._attempts.wait_until_none(0)
            if self._attempts.wait_until_none(min(left, pause)):
                return True
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _release_unbegun(self) -> None:
        for attempt in self._attempts.all():
            if attempt.phase is Phase.WAITING and attempt.begin():
                self._ours[attempt] = None
        for attempt in list(self._ours):
            try:
                if not attempt.dropped.is_set():
                    self._release(attempt)
            except OUTAGE_ERRORS as error:
                self._log.info("A job cannot be handed over. Trying again.", error=str(error))
                return
            except Exception:
                self._log.exception("A job cannot be handed over.", job_id=attempt.drawn.job_id)
            del self._ours[attempt]
            self._attempts.forget(attempt.drawn.fence.draw_id)

    def _release(self, attempt: Attempt) -> None:
        drawn = attempt.drawn
        try:
            self._port.release(
                Growth(job_id=drawn.job_id, fence=drawn.fence, run=drawn.run, offset=drawn.offset)
            )
        except EpochChanged:
            self._log.debug("A job is void: Redis lost it.", job_id=drawn.job_id)
