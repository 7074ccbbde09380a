"""The one protocol of all loops: start, step, stop. One thread each, held by a lease where one is enough."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from tether.broker.connections import OUTAGE_ERRORS
from tether.errors import StoreUnavailable
from tether.telemetry.logs import get_logger

PASSING_ERRORS: tuple[type[Exception], ...] = (*OUTAGE_ERRORS, StoreUnavailable)
"""Redis or the database is away: the step is done again when it is back."""

PAUSE_AFTER_ERROR_SECONDS = 0.5


def until(due_at: int | None, now_ms: int, longest: float) -> float:
    """Seconds until ``due_at``, at most ``longest``: others may put something due in between.

    Args:
      due_at, now_ms: Milliseconds since the epoch; None is never.
    """
    return longest if due_at is None else min(max((due_at - now_ms) / 1000, 0.0), longest)


class Step(Protocol):
    """What a loop does again and again.

    It is safe to be ended anywhere, to run twice at the same time, and to be called again after an error.
    """

    name: str

    def __call__(self) -> float:
        """Do what is due. Answers after how many seconds to look again; 0 is at once."""


class Loop:
    """Runs one step again and again in the thread ``tether-<name>``, from :meth:`start` to :meth:`stop`."""

    def __init__(self, step: Step, *, may_run: Callable[[], bool] = lambda: True, rest: float = 0.2) -> None:
        """
        Args:
          step: What to do.
          may_run: Whether this process holds the loop's lease.
          rest: Seconds after which ``may_run`` is asked again where it said no.
        """
        self.name = step.name
        self._step = step
        self._may_run = may_run
        self._rest = rest
        self._log = get_logger("tether.orchestrator").bind(loop=step.name)
        self._news = threading.Condition()
        self._is_stopping = False
        self._is_woken = False
        self._thread = threading.Thread(target=self._run, name=f"tether-{step.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Let it look now: there is something to do."""
        with self._news:
            self._is_woken = True
            self._news.notify_all()

    def ask_to_stop(self) -> None:
        """Let it end after the step under way, without waiting for that."""
        with self._news:
            self._is_stopping = True
            self._news.notify_all()

    def stop(self) -> None:
        """End after the step under way."""
        self.ask_to_stop()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        away = False
        while not self._is_stopping:
            seconds = self._rest
            if self._may_run():
                try:
                    seconds = self._step()
                    away = False
                except PASSING_ERRORS as error:
                    if not away:
                        self._log.warning("Redis or the database is away. Going on.", error=str(error))
                    away, seconds = True, PAUSE_AFTER_ERROR_SECONDS
                except Exception:
                    self._log.exception("A step failed. Going on.")
                    seconds = PAUSE_AFTER_ERROR_SECONDS
            self._wait(seconds)

    def _wait(self, seconds: float) -> None:
        with self._news:
            if seconds > 0:
                self._news.wait_for(lambda: self._is_stopping or self._is_woken, seconds)
            self._is_woken = False
