"""Tells the operators' hook of dead letters: of each at least once, and at no cost to anything else."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Self

from sqlalchemy import Connection

from tether.dead_letters import DeadLetter
from tether.errors import StoreError
from tether.ids import JobId
from tether.loops import IDLE, next_pause, seconds_until
from tether.orchestrator.context import LoopContext
from tether.orchestrator.hook_calls import HookCalls, HookResult
from tether.orchestrator.set_aside import FailedEntries, SetAside, after_failure
from tether.processes.hook_process import HookOverdue, HookProcess
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

MAX_UNNOTED = 10_000
"""While so many answers cannot be noted, no further calls are made: a query that leaves them out has
limits."""

UNNOTED_REST_SECONDS = 1.0
"""Until it is tried again to note them."""

MAX_PAUSE_SECONDS = 60.0
"""Between two calls of a hook that fails."""


class TellOfDeaths:
    """Has the hook called with the letters that it has not heard of, those first that are due for longest.

    A call that fails is made again after a pause that grows, others coming first; a hook that fails again and
    again rests itself. What came of a call is kept until it is noted: while the database takes no writes the
    hook is not called again with the same letters.
    """

    def __init__(
        self,
        store: Store,
        calls: HookCalls | None,
        *,
        now_ms: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
          calls: How the hook is called; None without one.
          now_ms: Milliseconds since the epoch.
          clock: Seconds, as that of ``calls``.
        """
        self._store = store
        self._calls = calls
        self._now_ms = now_ms
        self._clock = clock
        self._failures: dict[JobId, int] = {}
        self._answers: dict[JobId, HookAnswer] = {}
        self._in_row = 0
        self._pause = 0.0
        self._rests_until = 0.0
        self._log = get_logger("tether.orchestrator")
        self._unnoted: FailedEntries[JobId] = FailedEntries(DEATH_HOOK, self._log)

    @classmethod
    def make(cls, context: LoopContext) -> Self:
        settings = context.plane.settings.hooks
        calls = None
        if settings.on_dead:
            calls = HookCalls(
                HookProcess(settings.on_dead, call_seconds=settings.time_limit / 1000),
                on_end=lambda: context.wake(DEATH_HOOK),
                clock=time.monotonic,
                batch_seconds=BATCH_SECONDS,
            )
        step = cls(context.plane.store, calls, now_ms=context.now_ms)
        context.closing.callback(step.close)
        return step

    def close(self) -> None:
        """End the hook's calls, and note what came of them."""
        if self._calls is None:
            return
        self._calls.stop()
        try:
            self._note(self._calls.take_results())
        except StoreError as error:
            self._log.warning(
                "What the hook on_dead was told last could not be noted. It is told again.", error=str(error)
            )

    def __call__(self) -> float:
        calls = self._calls
        if calls is None:
            return IDLE
        is_busy = calls.is_busy
        self._note(calls.take_results())
        if is_busy:
            # It wakes the loop at its end.
            return IDLE
        now_ms, rest = self._now_ms(), self._rests_until - self._clock()
        if rest > 0:
            return rest
        if len(self._answers) >= MAX_UNNOTED:
            return UNNOTED_REST_SECONDS
        owed = self._store.read(owed_hooks, now_ms, HOOK_BATCH, list(self._answers))
        letters = self._store.read(_letters_of, [each.job_id for each in owed]) if owed else []
        known = {letter.job_id for letter in letters}
        # The others were deleted meanwhile.
        self._write([HookAnswer(each.job_id) for each in owed if each.job_id not in known])
        if not letters:
            return 0 if owed else seconds_until(self._store.read(next_hook_at, list(self._answers)), now_ms)
        self._failures = {each.job_id: each.failures for each in owed}
        calls.begin([replace(letter, retry_token="") for letter in letters])
        return IDLE

    def _note(self, results: list[HookResult]) -> None:
        answers = []
        for result in results:
            job_id, error = result.job_id, result.error
            if error is None:
                self._in_row, self._pause = 0, 0.0
                metrics.DEATH_HOOK_CALLS.labels(result="ok").inc()
                answers.append(HookAnswer(job_id))
                continue
            kind = "overdue" if isinstance(error, HookOverdue) else "error"
            metrics.DEATH_HOOK_CALLS.labels(result=kind).inc()
            self._log.error(
                "The hook on_dead failed. It is called again with this letter later.",
                job=job_id,
                error=str(error),
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
        return HookAnswer(job_id, failed.due_at, failed.failures)

    def _write(self, answers: list[HookAnswer]) -> None:
        """Note these answers, and those that could not be noted before."""
        self._answers |= {answer.job_id: answer for answer in answers}
        now_ms = self._now_ms()
        due = [each for job_id, each in self._answers.items() if self._unnoted.is_due(job_id, now_ms)]
        if not due:
            return
        for answer, noted in zip(due, self._store.write_each(note_hook_answers, due), strict=True):
            if isinstance(noted, Exception):
                self._unnoted.fail(answer.job_id, noted, now_ms, job=answer.job_id)
            else:
                self._unnoted.succeed(answer.job_id, job=answer.job_id)
                del self._answers[answer.job_id]


def _letters_of(connection: Connection, job_ids: list[JobId]) -> list[DeadLetter]:
    return letters_at(connection, places_of(connection, job_ids))
