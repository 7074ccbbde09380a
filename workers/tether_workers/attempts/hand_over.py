"""What a draining worker does with its attempts: lets them end, and hands over the others."""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable

import structlog

from tether.broker.pools.worker_port import Growth, WorkerPort
from tether.broker.redis.connections import OUTAGE_ERRORS
from tether.errors import EpochChanged
from tether.loops import next_pause
from tether.processes.stopping import HAND_OVER_SECONDS, WIND_UP_SECONDS, StopDeadline
from tether.threads import STOP_SECONDS, OwnedThread
from tether_workers.attempts.attempt import Attempt, AttemptEnding, AttemptPhase
from tether_workers.attempts.running import Attempts

STUCK_SECONDS = 1.0
"""What an engine gets to end once it is told to. Then its job is handed over without it."""

HURRIED_STUCK_SECONDS = 0.3
"""The same where nobody waits any longer for the process to stop."""

MAX_PAUSE_SECONDS = 0.2
"""Between two looks, also whether there is less time than there was."""


class HandOver:
    """Owns the thread ``tether-drain``, from each :meth:`start` until the attempts have ended, time is up, or
    it is called off. It can be used again after that."""

    def __init__(
        self,
        port: WorkerPort,
        attempts: Attempts,
        *,
        drain_time: float,
        hand_over_time: float = HAND_OVER_SECONDS,
        deadline: StopDeadline | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
          drain_time: Seconds for which attempts that run may go on.
          hand_over_time: Seconds that handing over may take after that; then what is left is given up, and
            its lease runs out.
          deadline: When the process stops, all of it ends as much earlier as that needs.
          clock: Seconds.
        """
        self._port = port
        self._attempts = attempts
        self._drain_time = drain_time
        self._hand_over_time = hand_over_time
        self._deadline = deadline or StopDeadline(clock)
        self._clock = clock
        self._log = structlog.stdlib.get_logger("tether.worker")
        self._lock = threading.Lock()
        self._called_off = threading.Event()
        self._ends_running = False
        self._thread: OwnedThread | None = None
        # Those that no slot runs, or none ends: whoever begins an attempt first has it.
        self._ours: dict[Attempt, Growth] = {}
        self._taken: set[Attempt] = set()

    def start(self, *, ends_running: bool = True) -> None:
        """Begin. Nothing may be drawn until the end. Where as much is under way, this changes nothing.

        Args:
          ends_running: Whether attempts that run are handed over after the drain time, or may go on.
        """
        with self._lock:
            former = self._thread
            if former is not None and former.is_alive and not self._called_off.is_set():
                if self._ends_running or not ends_running:
                    return
                self._called_off.set()
            self._ends_running = ends_running
            self._called_off = called_off = threading.Event()
            drain_time = self._drain_time if ends_running else math.inf
            self._thread = OwnedThread("drain", functools.partial(self._run, former, called_off, drain_time))
            self._thread.start()

    def call_off(self) -> None:
        """Let running jobs continue, except those whose hand-over has begun or that were asked to end."""
        with self._lock:
            self._called_off.set()

    def join(self, timeout: float = STOP_SECONDS) -> None:
        """Wait for the end, at most ``timeout`` seconds."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(timeout)

    def _run(self, former: OwnedThread | None, called_off: threading.Event, drain_time: float) -> None:
        if former is not None:
            former.join()
        if not self._hand_on(drain_time, self._hand_over_time, called_off) and not called_off.is_set():
            self._log.info("Handing over the jobs that are still running.", jobs=len(self._attempts.all()))
            self._attempts.end_all(AttemptEnding.RELEASE)
            if (
                not self._hand_on(self._hand_over_time, 0.0, called_off, released_at=self._clock())
                and not called_off.is_set()
            ):
                self._log.warning(
                    "Giving up jobs that could not be handed over: other workers get them when "
                    "their leases expire.",
                    jobs=len(self._attempts.all()),
                )
                self._attempts.end_all(AttemptEnding.DROP)
        if called_off.is_set():
            self._release_ours(self._clock() + self._hand_over_time)
        self._give_up_ours()

    def _hand_on(
        self,
        seconds: float,
        reserved: float,
        called_off: threading.Event,
        *,
        released_at: float = math.inf,
    ) -> bool:
        """Hand over jobs that nobody runs, until all have ended. Return False if they have not within so many
        seconds, or it was called off. When the process stops, ``reserved`` seconds are left after that; where
        nobody waits for that any longer, this has no time at all.

        Args:
          released_at: When all were told to end: those that do not are handed over without their engines.
        """
        until, pause = self._clock() + seconds, next_pause(0)
        while not called_off.is_set():
            self._begin_unbegun()
            patience = HURRIED_STUCK_SECONDS if self._deadline.is_hurried else STUCK_SECONDS
            if self._clock() - released_at >= patience:
                self._take_stuck()
            self._try_release_ours()
            left = min(until - self._clock(), self._left_to_stop(reserved))
            if left <= 0:
                return self._attempts.wait_until_none(0) and not self._ours
            if self._attempts.wait_until_none(min(left, pause)):
                if not self._ours:
                    return True
                # Slots have left what was taken from them.
                called_off.wait(min(left, pause))
            pause = next_pause(pause, MAX_PAUSE_SECONDS)
        return False

    def _left_to_stop(self, reserved: float) -> float:
        if not self._deadline.has_begun:
            return math.inf
        if self._deadline.is_hurried and reserved:
            return 0.0
        return self._deadline.remaining(but=WIND_UP_SECONDS + reserved)

    def _release_ours(self, until: float) -> None:
        """Hand over what nobody else can, for as long as there is time."""
        pause = next_pause(0)
        self._try_release_ours()
        while self._ours and (left := until - self._clock()) > 0:
            self._attempts.wait_until_none(min(left, pause))
            pause = next_pause(pause)
            self._try_release_ours()

    def _give_up_ours(self) -> None:
        for attempt in self._ours:
            attempt.end(AttemptEnding.DROP)
            self._attempts.forget(attempt.drawn.fence.draw_id)
        self._ours.clear()
        self._taken.clear()

    def _begin_unbegun(self) -> None:
        for attempt in self._attempts.all():
            if attempt.phase is AttemptPhase.WAITING and attempt.begin():
                drawn = attempt.drawn
                self._ours[attempt] = Growth(
                    job_id=drawn.job_id, fence=drawn.fence, run=drawn.run, offset=drawn.offset
                )

    def _take_stuck(self) -> None:
        for attempt in self._attempts.all():
            rest = attempt.take_from_slot() if attempt not in self._ours else None
            if rest is not None:
                self._log.warning(
                    "An engine does not end a job that it was told to. Handing it over without it.",
                    job_id=attempt.drawn.job_id,
                )
                self._taken.add(attempt)
                self._ours[attempt] = rest

    def _try_release_ours(self) -> None:
        for attempt in list(self._ours):
            try:
                if attempt in self._taken or not attempt.dropped.is_set():
                    self._release(attempt)
            except OUTAGE_ERRORS as error:
                self._log.info("A job cannot be handed over. Retrying.", error=str(error))
                return
            except Exception:
                self._log.exception("A job cannot be handed over.", job_id=attempt.drawn.job_id)
            del self._ours[attempt]
            self._taken.discard(attempt)
            self._attempts.forget(attempt.drawn.fence.draw_id)

    def _release(self, attempt: Attempt) -> None:
        try:
            self._port.release(self._ours[attempt])
        except EpochChanged:
            self._log.debug("A job is void: Redis lost it.", job_id=attempt.drawn.job_id)
