"""Whether a worker takes jobs: the one place that pauses, drains, resumes and stops it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import StrEnum

import structlog

from tether.broker.pools.slots import Slots
from tether_workers.attempts.hand_over import HandOver


class AvailabilityState(StrEnum):
    """What a worker does with jobs.

    Values:
      SERVING: It takes them.
      CORDONED: It takes no more; what runs goes on.
      DRAINING: It takes no more, and hands over what does not end in time.
      STOPPING: The same, and its process ends.
    """

    SERVING = "serving"
    CORDONED = "cordoned"
    DRAINING = "draining"
    STOPPING = "stopping"


class Availability:
    """Holds the state of a worker. Safe to use from many threads. It is lost with the process."""

    def __init__(self, slots: Slots, hand_over: HandOver, on_change: Callable[[], None]) -> None:
        """
        Args:
          on_change: Called after each change; it must be quick.
        """
        self._slots = slots
        self._hand_over = hand_over
        self._on_change = on_change
        self._lock = threading.Lock()
        self._state = AvailabilityState.SERVING
        self._log = structlog.stdlib.get_logger("tether.worker")

    @property
    def state(self) -> AvailabilityState:
        return self._state

    def cordon(self) -> None:
        """Draw no more. Running jobs continue, including those that were to be handed over later."""
        with self._lock:
            if self._enter(AvailabilityState.CORDONED, "Cordoned: drawing no new jobs."):
                self._slots.pause()
                self._hand_over.call_off()
                self._hand_over.start(ends_running=False)
        self._on_change()

    def drain(self) -> None:
        """Draw no more, and hand over what does not end within the drain time. The process stays."""
        with self._lock:
            if self._enter(
                AvailabilityState.DRAINING,
                "Draining: drawing no new jobs, handing over those that do not finish in time.",
            ):
                self._slots.pause()
                self._hand_over.start()
        self._on_change()

    def uncordon(self) -> None:
        """Draw again."""
        with self._lock:
            if self._enter(AvailabilityState.SERVING, "Drawing jobs again."):
                self._hand_over.call_off()
                self._slots.resume()
        self._on_change()

    def stop(self) -> None:
        """Draw no more, for good, and hand over what does not end within the drain time."""
        with self._lock:
            if self._enter(AvailabilityState.STOPPING, "Stopping: drawing no new jobs."):
                self._slots.stop_drawing()
                self._hand_over.start()
        self._on_change()

    def _enter(self, state: AvailabilityState, line: str) -> bool:
        if self._state is state or self._state is AvailabilityState.STOPPING:
            return False
        self._state = state
        self._log.info(line)
        return True
