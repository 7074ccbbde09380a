"""Tells the operators' hook of dead letters: of each at least once, and at no cost to anything else."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Self

from sqlalchemy import Connection

from tether.dead_letters import DeadLetter
from tether.hooks import load_death_hook
from tether.ids import JobId
from tether.loops import IDLE, next_pause, seconds_until
from tether.orchestrator.context import LoopContext
from tether.orchestrator.hook_calls import HookCalls, HookResult
from tether.orchestrator.set_aside import SetAside, after_failure
from tether.store.dead_letters import letters_at, places_of
from tether.store.letter_hooks import HookAnswer, next_hook_at, note_hook_answers, owed_hooks
from tether.store.store import Store
from tether.telemetry import metrics
from tether.telemetry.logs import get_logger

DEATH_HOOK = "death-hook"
"""The name of the loop."""

HOOK_BATCH = 16
"""Calls of which the loop learns together."""

BATCH_SECONDS = 1.0
"""After so long no further call of a batch begins: another orchestrator may hold the loop's lease soon."""

MAX_FAILURES_IN_ROW = 3
"""After so many failures without a success in between it is the hook that fails, not a letter."""

MAX_PAUSE_SECONDS = 60.0
"""Between two calls of a hook that fails."""


class TellOfDeaths:
    """Has the hook called with the letters that it has not heard of, those first that are due for longest.

    A call that fails is made again after a pause that grows, others coming first; a hook that fails again and
    again rests itself. One that takes longer than its limit counts as failed, and none other begins before it
    returns.
    """

    def __init__(
        self,
        store: Store,
        calls: HookCalls | None,
        *,
        time_limit_ms: int,
        now_ms: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
          calls: How the hook is called; None without one.
          time_limit_ms: After so long a call counts as failed.
          now_ms: Milliseconds since the epoch.
          clock: Seconds, as that of ``calls``.
        """
        self._store = store
        self._calls = calls
        self._time_limit = time_limit_ms / 1000
        self._now_ms = now_ms
        self._clock = clock
        self._failures: dict[JobId, int] = {}
        self._in_row = 0
        self._pause = 0.0
        self._rests_until = 0.0
        self._overdue: JobId | None = None
        self._log = get_logger("tether.orchestrator")

    @classmethod
    def make(cls, context: LoopContext) -> Self:
        settings = context.plane.settings.hooks
        calls = None
        if settings.on_dead:
            calls = HookCalls(
                functools.partial(load_death_hook, settings.on_dead),
                on_end=lambda: context.wake(DEATH_HOOK),
                clock=time.monotonic,
                batch_seconds=BATCH_SECONDS,
            )
            context.closing.callback(calls.stop)
        return cls(context.plane.store, calls, time_limit_ms=settings.time_limit, now_ms=context.now_ms)

    def __call__(self) -> float:
        calls = self._calls
        if calls is None:
            return IDLE
        is_busy = calls.is_busy
        self._note(calls.take_results())
        if is_busy:
            return self._look_at_call(calls)
        now_ms, rest = self._now_ms(), self._rests_until - self._clock()
        if rest > 0:
            return rest
        owed = self._store.read(owed_hooks, now_ms, HOOK_BATCH)
        letters = self._store.read(_letters_of, [each.job_id for each in owed]) if owed else []
        known = {letter.job_id for letter in letters}
        if gone := [HookAnswer(each.job_id) for each in owed if each.job_id not in known]:
            # They were deleted meanwhile.
            self._store.write_alone(note_hook_answers, gone).result()
        if not letters:
            return 0 if gone else seconds_until(self._store.read(next_hook_at), now_ms)
        self._failures = {each.job_id: each.failures for each in owed}
        calls.begin([replace(letter, retry_token="") for letter in letters])
        return self._time_limit

    def _look_at_call(self, calls: HookCalls) -> float:
        """Tell once of a call that takes too long. Return when to look again, in seconds."""
        call = calls.under_way
        if call is None:
            return self._time_limit
        left = call.since + self._time_limit - self._clock()
        if left > 0:
            return left
        if self._overdue is None:
            self._overdue = call.job_id
            self._log.error(
                "The hook on_dead takes too long. No other call begins before it returns.",
                job=call.job_id,
                limit_seconds=self._time_limit,
            )
            metrics.DEATH_HOOK_CALLS.labels(result="overdue").inc()
            self._write([self._postponed(call.job_id)])
        return IDLE

    def _note(self, results: list[HookResult]) -> None:
        answers = []
        for result in results:
            job_id, error = result.job_id, result.error
            if self._overdue == job_id:
                self._overdue = None
                self._log.warning("The hook on_dead has returned at last.", job=job_id)
            if error is None:
                self._in_row, self._pause = 0, 0.0
                metrics.DEATH_HOOK_CALLS.labels(result="ok").inc()
                answers.append(HookAnswer(job_id))
                continue
            metrics.DEATH_HOOK_CALLS.labels(result="error").inc()
            self._log.error(
                "The hook on_dead failed. It is called again with this letter later.",
                job=job_id,
                error=f"{type(error).__name__}: {error}"[:1_000],
            )
            answers.append(self._postponed(job_id))
        self._write(answers)

    def _postponed(self, job_id: JobId) -> HookAnswer:
        now_ms = self._now_ms()
        self._in_row += 1
        if self._in_row >= MAX_FAILURES_IN_ROW:
            self._pause = next_pause(max(self._pause, 0.5), MAX_PAUSE_SECONDS)
            self._rests_until = self._clock() + self._pause
        failures = self._failures.get(job_id, 0)
        failed = after_failure(SetAside(failures, now_ms) if failures else None, now_ms)
        self._failures[job_id] = failed.failures
        return HookAnswer(job_id, failed.due_at, failed.failures)

    def _write(self, answers: list[HookAnswer]) -> None:
        if answers:
            self._store.write_alone(note_hook_answers, answers).result()


def _letters_of(connection: Connection, job_ids: list[JobId]) -> list[DeadLetter]:
    return letters_at(connection, places_of(connection, job_ids))
