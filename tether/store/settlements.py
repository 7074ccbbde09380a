"""Settling: what Redis handed back becomes final, or waits for its next attempt, once and in any order."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol

from sqlalchemy import Connection, update

from tether.deaths import deaths_in_words
from tether.errors import WorkerLost
from tether.ids import JobId, TenantId, worker_of
from tether.jobs import JobError, JobState
from tether.outcomes import Letter, Outcome, OutcomeKind, Verdict
from tether.store.accounting import account_for
from tether.store.attempt_rows import AttemptRows, newest_attempts
from tether.store.bulk import delete_of_jobs, insert_rows, lock_jobs, update_rows
from tether.store.holds import CAPACITY, QUOTA, Moves, free_holds, move_counters
from tether.store.letter_histories import MAX_LETTER_ATTEMPTS, letter_history
from tether.store.letter_hooks import owe_hooks
from tether.store.rows import JobRow, compact_json, error_to_text, result_to_text
from tether.store.schema import dead_letters, dispatches, holds, jobs

MAX_FAILED_ON = 16
"""Workers that failed a job and are remembered: others are given it first."""

_WAITING = (JobState.PARKED, JobState.WAITING_RETRY)


class Decide(Protocol):
    """Decides what becomes of a job, from the outcome and the row as it is in the transaction. It may be
    called again for the same outcome, and must not block."""

    def __call__(self, outcome: Outcome, row: JobRow) -> Verdict: ...


@dataclass(frozen=True)
class Settlement:
    """One outcome to settle.

    Attributes:
      now_ms: Milliseconds since the epoch.
      may_be_ahead: Whether it counts too where its dispatch is a later one than the row's: the database was
        set back to a backup, and the row goes on from here.
    """

    outcome: Outcome
    now_ms: int
    may_be_ahead: bool = False


class SettledKind(StrEnum):
    """Result of settling an outcome."""

    SETTLED = "settled"
    REPEATED = "repeated"
    STALE = "stale"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Settled:
    """The result of one :class:`Settlement`.

    Attributes:
      kind: ``settled``: the row changed. ``repeated``: a duplicate of a settled outcome. ``stale``: it was
        recorded, but the row had moved on. ``unknown``: there is no such job; nothing was written.
      state: The row's, afterwards; None if the job is unknown.
      dispatch: The row's latest dispatch.
      error: Why the job failed, or its last attempt.
      reason: Of the dead letter that was written; None if there was none.
      tenant_id: Whose job it is; None if it is unknown.
    """

    kind: SettledKind
    job_id: JobId
    state: JobState | None
    dispatch: int
    error: JobError | None
    reason: str | None = None
    tenant_id: TenantId | None = None


class Settle:
    """The operation that settles. Make one and keep it: what goes through it shares transactions.

    Args:
      decide: What becomes of a job.
      has_hook: Whether there is a hook that is to hear of dead letters.
    """

    def __init__(self, decide: Decide, *, has_hook: bool = False) -> None:
        self._decide = decide
        self._has_hook = has_hook

    def __call__(self, connection: Connection, settlements: list[Settlement]) -> list[Settled]:
        return settle(connection, settlements, self._decide, has_hook=self._has_hook)


def settle(
    connection: Connection, settlements: list[Settlement], decide: Decide, *, has_hook: bool = False
) -> list[Settled]:
    """Settle outcomes, in order; several may be of one job.

    An outcome is known by (job, dispatch, attempt, draw id). It changes the row only if the row is not final
    and is still at the outcome's dispatch. A row that waits for its next hand-over was settled by an earlier
    outcome of the same one: only an outcome that makes it final changes it again.
    """
    ids = sorted({settlement.outcome.job_id for settlement in settlements})
    rows = lock_jobs(connection, ids)
    changes = _Changes(rows, AttemptRows.of(connection, rows, [each.outcome for each in settlements]))
    answers = [_settle_one(changes, settlement, decide) for settlement in settlements]
    _write(connection, changes)
    if has_hook and changes.letters:
        owe_hooks(connection, [letter["job_id"] for letter in changes.letters], settlements[0].now_ms)
    return answers


@dataclass
class _Changes:
    """The rows as they become, and what has to be written for it."""

    rows: dict[JobId, JobRow]
    attempts: AttemptRows
    results: dict[JobId, str | None] = field(default_factory=dict)
    raised: dict[JobId, int] = field(default_factory=dict)
    letters: list[dict[str, Any]] = field(default_factory=list)


def _settle_one(changes: _Changes, settlement: Settlement, decide: Decide) -> Settled:
    outcome = settlement.outcome
    row = changes.rows.get(outcome.job_id)
    if row is None:
        return Settled(SettledKind.UNKNOWN, outcome.job_id, None, 0, None)
    is_ahead = settlement.may_be_ahead and row.dispatch < outcome.fence.dispatch
    is_new = changes.attempts.note(outcome)
    if not is_new and not is_ahead:
        return _settled(SettledKind.REPEATED, row)
    if row.state.is_final or (row.dispatch != outcome.fence.dispatch and not is_ahead):
        return _settled(SettledKind.STALE, row)
    verdict = decide(outcome, row)
    if row.state in _WAITING and not verdict.state.is_final and not is_ahead:
        return _settled(SettledKind.STALE, row)
    if is_ahead:
        changes.raised[row.job_id] = outcome.fence.dispatch
    row = changes.rows[row.job_id] = _after(row, outcome, verdict, settlement.now_ms)
    changes.results[row.job_id] = _result(outcome) if row.state.is_final else None
    if verdict.letter is not None:
        changes.letters.append(_letter_columns(row, verdict.letter, settlement.now_ms))
    settled = _settled(SettledKind.SETTLED, row)
    return settled if verdict.letter is None else replace(settled, reason=verdict.letter.reason)


def _settled(kind: SettledKind, row: JobRow) -> Settled:
    return Settled(kind, row.job_id, row.state, row.dispatch, row.error, tenant_id=row.tenant_id)


def _after(row: JobRow, outcome: Outcome, verdict: Verdict, now_ms: int) -> JobRow:
    is_final = verdict.state.is_final
    return replace(
        row,
        state=verdict.state,
        dispatch=outcome.fence.dispatch,
        attempts=row.attempts + outcome.counts(row.attempts),
        error=_error_after(row, outcome),
        failed_on=_failed_on_after(row, outcome),
        expires_at=0 if outcome.has_begun else row.expires_at,
        input_tokens=outcome.input_tokens if is_final else row.input_tokens,
        output_tokens=outcome.offset if is_final else row.output_tokens,
        due_at=row.due_at if is_final else verdict.due_at,
        updated_at=now_ms,
        finished_at=now_ms if is_final else None,
    )


def _failed_on_after(row: JobRow, outcome: Outcome) -> str:
    """The workers that failed it last, the newest behind."""
    if outcome.kind is not OutcomeKind.FAILED or not outcome.worker:
        return row.failed_on
    worker = worker_of(outcome.worker)
    former = [each for each in row.failed_on.split() if each != worker]
    return " ".join([*former, worker][-MAX_FAILED_ON:])


def _error_after(row: JobRow, outcome: Outcome) -> JobError | None:
    match outcome.kind:
        case OutcomeKind.WITHDRAWN:
            return row.error
        case OutcomeKind.POISONED if outcome.error is None:
            return JobError(WorkerLost.code, deaths_in_words(outcome.evidence, outcome.deaths))
        case _:
            return outcome.error


def _result(outcome: Outcome) -> str | None:
    """What was made before a job failed or was cancelled is kept too."""
    if outcome.kind is not OutcomeKind.SUCCEEDED and not outcome.pieces:
        return None
    return result_to_text(outcome.pieces, outcome.run, outcome.finish_reason)


def _letter_columns(row: JobRow, letter: Letter, now_ms: int) -> dict[str, Any]:
    return {
        "job_id": row.job_id,
        "tenant_id": row.tenant_id,
        "model": row.model,
        "pool": row.pool,
        "reason": letter.reason,
        "retryable": letter.retryable,
        "retry_token": letter.retry_token,
        "evidence": compact_json(dict(letter.evidence)),
        "created_at": now_ms,
    }


def _write(connection: Connection, changes: _Changes) -> None:
    changes.attempts.write(connection)
    changed = [changes.rows[job_id] for job_id in sorted(changes.results)]
    if not changed:
        return
    # The rows are locked, so they are still what the changes were decided on.
    update_rows(connection, jobs, "job_id", [_change(row, changes.results[row.job_id]) for row in changed])
    insert_rows(connection, dead_letters, [_with_history(connection, each) for each in changes.letters])
    for job_id in sorted(changes.raised):
        moved = update(holds).where(holds.c.job_id == job_id, holds.c.kind == CAPACITY)
        connection.execute(moved.values(dispatch=changes.raised[job_id]))
    delete_of_jobs(connection, dispatches, [row.job_id for row in changed])
    account_for(connection, [row for row in changed if row.state.is_final])
    moves: Moves = Counter()
    final = [row.job_id for row in changed if row.state.is_final]
    # What waits for its next attempt is in no pool: it would keep others out.
    waiting = [row.job_id for row in changed if row.state in _WAITING]
    free_holds(connection, final, (CAPACITY, QUOTA), moves)
    free_holds(connection, waiting, (CAPACITY,), moves)
    move_counters(connection, moves)


def _with_history(connection: Connection, letter: dict[str, Any]) -> dict[str, Any]:
    history = letter_history(newest_attempts(connection, letter["job_id"], MAX_LETTER_ATTEMPTS))
    return {**letter, "history": compact_json(history)}


def _change(row: JobRow, result: str | None) -> dict[str, Any]:
    return {
        "job_id": row.job_id,
        "state": row.state.value,
        "dispatch": row.dispatch,
        "attempts": row.attempts,
        "error": error_to_text(row.error),
        "failed_on": row.failed_on,
        "expires_at": row.expires_at,
        "result": result,
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
        "due_at": row.due_at,
        "updated_at": row.updated_at,
        "finished_at": row.finished_at,
    }
