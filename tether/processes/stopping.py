"""How a process ends in time: one deadline for all of its stop, and a thread that keeps to it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from tether.telemetry.logs import get_logger
from tether.threads import STOP_SECONDS, OwnedThread

WIND_UP_SECONDS = 3.0
"""What a process gets to end its threads and close its connections, once its work has ended."""

SEVERED_SECONDS = 1.5
"""So long before the deadline connections are severed: whoever waits for an answer waits no longer, and still
has time to end in order."""

CLOSING_SECONDS = 1.0
"""Of that, what is left for closing when a thread does not end all the same."""

HAND_OVER_SECONDS = 5.0
"""What a worker gets, once its jobs' time is over, to hand them over or to acknowledge what has ended."""

HURRY_SECONDS = 1.5 + WIND_UP_SECONDS
"""What a process may take from the second signal on: to hand over what is not finished, and to wind up."""

GRACE_SECONDS = 1.0
"""What a supervisor waits beyond a child's own deadline before it kills the child."""

ORCHESTRATOR_STOP_SECONDS = 2.0 + WIND_UP_SECONDS
"""What the steps under way get to end, and all else to close."""

NOT_IN_TIME = 1
"""Exit status of a process that was not able to end in order by its deadline."""


def worker_stop_seconds(work_seconds: float) -> float:
    """Seconds that a worker process may take to stop whose actors or jobs may go on for ``work_seconds``."""
    return work_seconds + HAND_OVER_SECONDS + WIND_UP_SECONDS


def gateway_stop_seconds(drain_seconds: float) -> float:
    """Seconds that a gateway process may take to stop whose requests get ``drain_seconds`` to end."""
    return drain_seconds + WIND_UP_SECONDS


class StopDeadline:
    """When a process that was told to stop is to be gone. Every step of its stop gets what remains.

    Safe to use from many threads. Before :meth:`begin` there is no deadline.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
          clock: Monotonic seconds.
        """
        self._clock = clock
        self._changed = threading.Condition()
        self._at: float | None = None
        self._is_hurried = False

    @property
    def has_begun(self) -> bool:
        return self._at is not None

    @property
    def is_hurried(self) -> bool:
        """Whether what runs is to be given up now."""
        return self._is_hurried

    def begin(self, seconds: float) -> None:
        """The stop begins now, and may take so many seconds. Once it has begun, this changes nothing.

        A handler of signals may call it.
        """
        # A second signal may come while the interrupted thread holds the lock.
        if self._at is not None:
            return
        with self._changed:
            if self._at is None:
                self._at = self._clock() + seconds
                self._changed.notify_all()

    def shorten(self, seconds: float) -> None:
        """What is left to do may take so many seconds at most. Before :meth:`begin` this changes nothing."""
        with self._changed:
            if self._at is not None:
                self._at = min(self._at, self._clock() + seconds)
                self._changed.notify_all()

    def hurry(self, seconds: float) -> None:
        """Nobody waits any longer: what runs is given up now. All else may take so many seconds at most."""
        self._is_hurried = True
        self.shorten(seconds)

    def remaining(self, *, but: float = 0.0) -> float:
        """Seconds that remain for a step after which others need ``but`` seconds: 0 where there are none, and
        as many as an owner waits for its thread where no deadline was set."""
        at = self._at
        return STOP_SECONDS if at is None else max(at - but - self._clock(), 0.0)

    def wait_until_close(self, seconds: float, is_over: Callable[[], bool]) -> bool:
        """Wait until no more than so many seconds remain, or ``is_over`` after :meth:`recheck`; return which:
        whether the time has come."""
        with self._changed:
            while not is_over():
                left = None if self._at is None else self._at - seconds - self._clock()
                if left is not None and left <= 0:
                    return True
                self._changed.wait(left)
            return False

    def recheck(self) -> None:
        """Let who waits look again at what it waits for."""
        with self._changed:
            self._changed.notify_all()


class StopWatch:
    """Sees to it that this process is gone by its deadline.

    Owns the thread ``tether-stop-watch``, from :meth:`start` to :meth:`stop`. Shortly before the deadline it
    severs connections, so that nobody waits any longer for a server that does not answer. What still hangs at
    the deadline (a database, a model that is being loaded) ends with the process: what it had not finished is
    left to leases, as after a crash.
    """

    def __init__(
        self,
        deadline: StopDeadline,
        *,
        sever: Callable[[], object],
        end_process: Callable[[int], object] = os._exit,
    ) -> None:
        """
        Args:
          sever: Ends all connections that somebody may wait on. It must not block.
          end_process: Ends the process at once, with an exit status.
        """
        self._deadline = deadline
        self._sever = sever
        self._end_process = end_process
        self._is_over = False
        self._log = get_logger("tether.processes")
        self._thread = OwnedThread("stop-watch", self._run, ask_to_stop=self._ask_to_stop)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """The process has ended all it had to: nothing is severed or ended any more."""
        self._thread.stop()

    def __enter__(self) -> StopWatch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _ask_to_stop(self) -> None:
        self._is_over = True
        self._deadline.recheck()

    def _run(self) -> None:
        if not self._deadline.wait_until_close(SEVERED_SECONDS, lambda: self._is_over):
            return
        self._log.warning(
            "Not all has ended in time. Ending the connections to servers, so that nobody waits for them."
        )
        self._sever()
        if self._deadline.wait_until_close(0.0, lambda: self._is_over):
            self._log.error("The process did not stop in time. Ending it: leases say what goes on elsewhere.")
            self._end_process(NOT_IN_TIME)
