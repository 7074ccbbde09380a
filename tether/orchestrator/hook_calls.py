"""The thread that waits for a hook of a user's own: whatever that does, it keeps nobody else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tether.dead_letters import DeadLetter
from tether.ids import JobId
from tether.telemetry.logs import get_logger
from tether.threads import OwnedThread

STOP_SECONDS = 1.0
"""How long the end of a process waits for a call under way."""


@dataclass(frozen=True)
class HookResult:
    """What came of one call.

    Attributes:
      error: What it raised; None if it returned.
    """

    job_id: JobId
    error: Exception | None = None


class ClosableHook(Protocol):
    """A hook that another thread can end while it is called: that call raises then."""

    def __call__(self, letter: DeadLetter) -> object: ...

    def close(self) -> None: ...


class HookCalls:
    """Owns the thread ``tether-on-dead`` from the first call to :meth:`stop`, and calls the hook in it.

    It has at most one batch in hand. Only :meth:`stop` blocks. Safe to use from many threads.
    """

    def __init__(
        self,
        hook: ClosableHook,
        *,
        on_end: Callable[[], None],
        clock: Callable[[], float],
        batch_seconds: float,
    ) -> None:
        """
        Args:
          hook: Called in the thread, and closed by :meth:`stop`.
          on_end: Called in the thread when a batch has ended.
          clock: Seconds.
          batch_seconds: After so long no further call of a batch begins.
        """
        self._hook = hook
        self._on_end = on_end
        self._clock = clock
        self._batch_seconds = batch_seconds
        self._news = threading.Condition()
        self._batch: Sequence[DeadLetter] = ()
        self._results: list[HookResult] = []
        self._is_stopping = False
        self._log = get_logger("tether.orchestrator")
        self._thread = OwnedThread("on-dead", self._run, ask_to_stop=self._ask_to_stop)

    @property
    def is_busy(self) -> bool:
        """Whether a batch is in hand."""
        with self._news:
            return bool(self._batch)

    def begin(self, letters: Sequence[DeadLetter]) -> None:
        """Call the hook with these letters, one after another, until one call fails."""
        assert letters
        self._thread.start()
        with self._news:
            assert not self._batch, "a batch is in hand"
            self._batch = letters
            self._news.notify_all()

    def take_results(self) -> list[HookResult]:
        """What came of calls that have returned since the last time."""
        with self._news:
            results, self._results = self._results, []
            return results

    def stop(self) -> None:
        """End after the call under way, or, where that takes long, in it."""
        if not self._thread.stop(STOP_SECONDS):
            self._hook.close()
            self._thread.stop()
        self._hook.close()

    def _ask_to_stop(self) -> None:
        with self._news:
            self._is_stopping = True
            self._news.notify_all()

    def _run(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._is_stopping or self._batch)
                if self._is_stopping:
                    return
                batch = self._batch
            self._call_each(batch)
            with self._news:
                self._batch = ()
            try:
                self._on_end()
            except Exception as error:
                self._log.exception(
                    "The end of calls of the hook on_dead could not be told.", error=str(error)
                )

    def _call_each(self, batch: Sequence[DeadLetter]) -> None:
        until = self._clock() + self._batch_seconds
        for letter in batch:
            if self._is_stopping or self._clock() >= until:
                return
            error = self._error_of(letter)
            with self._news:
                self._results.append(HookResult(letter.job_id, error))
            if error is not None:
                return

    def _error_of(self, letter: DeadLetter) -> Exception | None:
        try:
            self._hook(letter)
        except Exception as error:
            return error
        return None
