"""The one protocol of all loops: start, step, stop.

A :class:`Loop` owns a thread and calls its :data:`Step` again and again. It rests until the step wants to be
called again, its interval is over, or somebody wakes it. What a step raises is logged and counted, and never
ends the loop.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeAlias, TypeVar

import structlog

from tether.telemetry import metrics
from tether.telemetry.logs import get_logger
from tether.threads import STOP_SECONDS, OwnedThread

Step: TypeAlias = Callable[[], float]
"""What a loop does again and again: returns after how many seconds it wants to be called again.

0 is at once, since there is more to do; :data:`IDLE` leaves that to the loop's interval and to who wakes it.
It is safe to be ended anywhere, and to be called again after an error.
"""

IDLE = math.inf
"""A step has nothing to do before the loop's interval is over, or the loop is woken."""

FIRST_PAUSE_SECONDS = 0.05
MAX_PAUSE_SECONDS = 1.0
"""Between two tries of a step that fails; the pause doubles until then."""

LEASE_LOOK_SECONDS = 0.2
"""After so long ``may_run`` is asked again where it said no."""

Wait: TypeAlias = Callable[[threading.Condition, Callable[[], bool], float | None], object]
"""How a loop waits: until the predicate holds, at most so many seconds; None is without end."""

_Value = TypeVar("_Value")


def next_pause(pause: float, max_seconds: float = MAX_PAUSE_SECONDS) -> float:
    """Return the pause before a further try, in seconds: twice the last; that is 0 where there was none."""
    return min(max(pause * 2, FIRST_PAUSE_SECONDS), max_seconds)


def seconds_until(due_at: int | None, now_ms: int) -> float:
    """Seconds until ``due_at``, :data:`IDLE` where that is None: never.

    Args:
      due_at, now_ms: Milliseconds since the epoch.
    """
    return IDLE if due_at is None else max((due_at - now_ms) / 1000, 0.0)


class Outage:
    """Logs once that something is away, and once that it is back, however often it is tried meanwhile."""

    def __init__(
        self,
        errors: tuple[type[Exception], ...],
        log: structlog.stdlib.BoundLogger,
        *,
        begins: str,
        ends: str,
        **fields: object,
    ) -> None:
        """
        Args:
          errors: Errors that mean an outage: transient, and no fault of the step.
          begins, ends: Messages to log.
          fields: Fields of both lines.
        """
        self.errors = errors
        self.is_on = False
        self._log = log
        self._begins = begins
        self._ends = ends
        self._fields = fields

    def begin(self, error: Exception | None = None) -> None:
        """It is away."""
        if not self.is_on:
            self.is_on = True
            reason = {} if error is None else {"error": str(error)}
            self._log.warning(self._begins, **self._fields, **reason)

    def end(self) -> None:
        """It is there."""
        if self.is_on:
            self.is_on = False
            self._log.info(self._ends, **self._fields)


class Signal(Generic[_Value]):
    """Values that a test waits for instead of sleeping, in their order."""

    def __init__(self) -> None:
        self._values: SimpleQueue[_Value] = SimpleQueue()

    def send(self, value: _Value) -> None:
        self._values.put(value)

    def wait(self, timeout: float = 10.0) -> _Value:
        """The next value.

        Raises:
          TimeoutError: There was none within ``timeout`` seconds.
        """
        try:
            return self._values.get(timeout=timeout)
        except Empty:
            raise TimeoutError(f"no signal within {timeout} s") from None


class LoopSignals:
    """What a loop tells a test.

    Attributes:
      stepped: A step has ended: after how many seconds it wants to be called again.
      failed: A step has raised this.
      idle: The loop rests now, for so many seconds at most.
    """

    def __init__(self) -> None:
        self.stepped: Signal[float] = Signal()
        self.failed: Signal[Exception] = Signal()
        self.idle: Signal[float] = Signal()


class Loop:
    """Runs one step again and again in the thread ``tether-<name>``, from :meth:`start` to :meth:`stop`."""

    def __init__(
        self,
        name: str,
        step: Step,
        *,
        interval: float = IDLE,
        delay: float = 0.0,
        may_run: Callable[[], bool] | None = None,
        outage: Outage | None = None,
        at_lapse: Callable[[], object] | None = None,
        at_end: Callable[[], object] | None = None,
        max_pause_seconds: float = MAX_PAUSE_SECONDS,
        log: structlog.stdlib.BoundLogger | None = None,
        wait: Wait = threading.Condition.wait_for,
    ) -> None:
        """
        Args:
          name: Of the loop, and of its thread after ``tether-``.
          step: What to do.
          interval: The maximum sleep between two steps, in seconds; :data:`IDLE` is until it is woken.
          delay: The sleep before the first step, in seconds; :data:`IDLE` is until it is woken.
          may_run: Whether this process may run the step now: it holds the loop's lease.
          at_lapse: What to do in the thread once it may not run any more, after a step. It raises nothing.
          outage: The outage that begins when the step raises one of its errors, and ends with a success.
          at_end: What to do in the thread after the last step.
          max_pause_seconds: Maximum backoff after a failed step, in seconds. Only :meth:`stop` interrupts it.
          log: Where failures are logged.
          wait: How it waits.
        """
        self.name = name
        self._step = step
        self._interval = interval
        self._delay = delay
        self._may_run = may_run
        self._at_lapse = at_lapse
        self._has_run = False
        self._outage = outage
        self._at_end = at_end
        self._max_pause_seconds = max_pause_seconds
        self._pause = 0.0
        self._log = log or get_logger("tether.loops")
        self._wait_for = wait
        self._news = threading.Condition()
        self._is_stopping = False
        self._is_woken = False
        self._signals: LoopSignals | None = None
        self._thread = OwnedThread(name, self._run, ask_to_stop=self.ask_to_stop)

    @property
    def is_alive(self) -> bool:
        """Whether its thread is there."""
        return self._thread.is_alive

    @property
    def is_stopping(self) -> bool:
        """Whether it was asked to stop: a step that takes long looks at this."""
        return self._is_stopping

    def observe(self) -> LoopSignals:
        """For tests: what it does from now on, as signals."""
        if self._signals is None:
            self._signals = LoopSignals()
        return self._signals

    def start(self) -> None:
        """Start the thread. A second call does nothing."""
        self._thread.start()

    def wake(self) -> None:
        """Let it step now, or once more after the step under way: there is something to do."""
        # Where this is set already, a step begins after whatever the caller did before the call.
        if not self._is_woken:
            with self._news:
                self._is_woken = True
                self._news.notify_all()

    def rest(self, seconds: float) -> None:
        """Wait within a step; only :meth:`stop` cuts it short."""
        with self._news:
            self._wait_for(self._news, self._must_stop, seconds)

    def ask_to_stop(self) -> None:
        """Let it end after the step under way, without waiting for that."""
        with self._news:
            self._is_stopping = True
            self._news.notify_all()

    def stop(self, timeout: float = STOP_SECONDS) -> bool:
        """End after the step under way, waiting for that at most ``timeout`` seconds. May be repeated, and
        called where it was never started.

        Returns:
          Whether its thread is no more. Where it still is, that is logged.
        """
        return self._thread.stop(timeout)

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end of the thread, at most ``timeout`` seconds. Returns whether it is no more."""
        return self._thread.join(timeout)

    def _must_stop(self) -> bool:
        return self._is_stopping

    def _has_news(self) -> bool:
        return self._is_stopping or self._is_woken

    def _run(self) -> None:
        self._idle(self._delay)
        while not self._is_stopping:
            if self._may_run is not None and not self._may_run():
                if self._has_run and self._at_lapse is not None:
                    self._at_lapse()
                self._has_run = False
                self._idle(LEASE_LOOK_SECONDS)
                continue
            self._has_run = True
            try:
                seconds = self._step()
            except Exception as error:
                self._fail(error)
                self.rest(self._pause)
                # The next step sees whatever it was woken for.
                self._is_woken = False
            else:
                self._succeed(seconds)
                self._idle(min(seconds, self._interval))
        if self._at_end is not None:
            try:
                self._at_end()
            except Exception as error:
                self._fail(error)

    def _idle(self, seconds: float) -> None:
        if seconds > 0:
            if self._signals is not None:
                self._signals.idle.send(seconds)
            with self._news:
                self._wait_for(self._news, self._has_news, None if seconds == IDLE else seconds)
        self._is_woken = False

    def _succeed(self, seconds: float) -> None:
        self._pause = 0.0
        if self._outage is not None:
            self._outage.end()
        if self._signals is not None:
            self._signals.stepped.send(seconds)

    def _fail(self, error: Exception) -> None:
        self._pause = next_pause(self._pause, self._max_pause_seconds)
        is_outage = self._outage is not None and isinstance(error, self._outage.errors)
        if self._outage is not None and is_outage:
            self._outage.begin(error)
        else:
            self._log.exception("A step failed. Continuing.", loop=self.name)
        metrics.LOOP_FAILURES.labels(loop=self.name, reason="outage" if is_outage else "error").inc()
        if self._signals is not None:
            self._signals.failed.send(error)
