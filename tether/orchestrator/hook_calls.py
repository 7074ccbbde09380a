"""The thread in which a hook of a user's own runs: whatever that does, it keeps nobody else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tether.dead_letters import DeadLetter
from tether.hooks import DeathHook
from tether.ids import JobId
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
    error: BaseException | None = None


@dataclass(frozen=True)
class CallUnderWay:
    """A call that has not returned.

    Attributes:
      since: Seconds, by the clock of the calls.
    """

    job_id: JobId
    since: float


Load: TypeAlias = Callable[[], DeathHook]
"""Loads the hook; raises ConfigError if there is none."""


class HookCalls:
    """Owns the thread ``tether-on-dead`` from the first call to :meth:`stop`, and calls the hook in it.

    It has at most one batch in hand. Only :meth:`stop` blocks. Safe to use from many threads.
    """

    def __init__(
        self,
        load: Load,
        *,
        on_end: Callable[[], None],
        clock: Callable[[], float],
        batch_seconds: float,
    ) -> None:
        """
        Args:
          load: Called in the thread, until it succeeds once.
          on_end: Called in the thread when a batch has ended.
          clock: Seconds.
          batch_seconds: After so long no further call of a batch begins.
        """
        self._load = load
        self._on_end = on_end
        self._clock = clock
        self._batch_seconds = batch_seconds
        self._hook: DeathHook | None = None
        self._news = threading.Condition()
        self._batch: Sequence[DeadLetter] = ()
        self._results: list[HookResult] = []
        self._call: CallUnderWay | None = None
        self._is_stopping = False
        self._thread = OwnedThread("on-dead", self._run, ask_to_stop=self._ask_to_stop)

    @property
    def is_busy(self) -> bool:
        """Whether a batch is in hand."""
        with self._news:
            return bool(self._batch)

    @property
    def under_way(self) -> CallUnderWay | None:
        """The call that has not returned; None without one."""
        with self._news:
            return self._call

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

    def stop(self) -> bool:
        """End after the call under way. One that takes long is left behind: it ends with the process.

        Returns:
          Whether its thread is no more.
        """
        return self._thread.stop(STOP_SECONDS)

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
            self._on_end()

    def _call_each(self, batch: Sequence[DeadLetter]) -> None:
        until = self._clock() + self._batch_seconds
        for letter in batch:
            now = self._clock()
            if self._is_stopping or now >= until:
                return
            with self._news:
                self._call = CallUnderWay(letter.job_id, now)
            error = self._error_of(letter)
            with self._news:
                self._call = None
                self._results.append(HookResult(letter.job_id, error))
            if error is not None:
                return

    def _error_of(self, letter: DeadLetter) -> BaseException | None:
        try:
            if self._hook is None:
                self._hook = self._load()
            self._hook(letter)
        except BaseException as error:
            # A hook may raise SystemExit: it is its own.
            return error
        return None
