"""Rows of the table ``attempts``: what outcomes say of attempts, once, in whatever order they come.

Of an attempt two things may be told, each at most once that counts: how it ended (its end, in the log that an
outcome brings along), and how its dispatch ended with it (an outcome that has its fence). A row is what is
known of both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Integer, Select, any_, bindparam, func, select
from sqlalchemy.dialects import postgresql

from tether.attempts import AttemptEnd
from tether.ids import DrawId, JobId
from tether.jobs import Fence, Outcome
from tether.store.bulk import delete_rows, insert_rows, is_among, is_postgres
from tether.store.letter_histories import MAX_LETTER_ATTEMPTS, letter_history
from tether.store.rows import compact_json, error_to_text
from tether.store.schema import attempts

NO_OUTCOME = ""
"""The kind of an attempt that no outcome names: its job went on in Redis, or the outcome has not come yet."""

_KEY = ("job_id", "dispatch", "attempt", "draw_id")
_NEWEST_FIRST = tuple(attempts.c[name].desc() for name in _KEY[1:])
_Row = Mapping[str, Any]


class AttemptRows:
    """The attempts of jobs whose rows are locked, as they become."""

    def __init__(self, connection: Connection, known: dict[JobId, dict[Fence, _Row]]) -> None:
        self._connection = connection
        self._known = known
        self._changed: dict[tuple[JobId, Fence], bool] = {}

    @classmethod
    def of(
        cls, connection: Connection, job_ids: Collection[JobId], outcomes: Sequence[Outcome]
    ) -> AttemptRows:
        """Those that these outcomes may change, of jobs whose rows the transaction has locked: nobody else
        adds to them meanwhile. A job may have had many thousands of others."""
        known: dict[JobId, dict[Fence, _Row]] = {job_id: {} for job_id in job_ids}
        numbers = {outcome.fence.dispatch for outcome in outcomes}
        numbers |= {end.dispatch for outcome in outcomes for end in outcome.ends}
        if known and numbers:
            given = {"ids": list(known), "numbers": sorted(numbers)}
            for row in connection.execute(_attempts_of(is_postgres(connection)), given):
                known[row.job_id][_fence(row)] = dict(row._mapping)
        return cls(connection, known)

    def note(self, outcome: Outcome) -> bool:
        """Note what an outcome says. Return whether it is the first one with its fence."""
        known = self._known[outcome.job_id]
        for end in outcome.ends:
            fence = Fence(end.dispatch, end.attempt, end.draw_id)
            former = known.get(fence)
            if former is None:
                self._change(outcome.job_id, fence, _of_end(outcome.job_id, end))
            elif former["cause"] is None or _place(_end_columns(end)) < _place(former):
                # After a loss in Redis an attempt may end a second time: the first end counts.
                self._change(outcome.job_id, fence, {**former, **_end_columns(end)})
        former = known.get(outcome.fence)
        if former is None:
            self._change(outcome.job_id, outcome.fence, _of_outcome(outcome))
        elif former["kind"] == NO_OUTCOME:
            self._change(outcome.job_id, outcome.fence, {**former, **_outcome_columns(outcome)})
        else:
            return False
        return True

    def history(self, job_id: JobId) -> list[dict[str, Any]]:
        """A job's newest attempts in order, as a dead letter keeps them."""
        newest = select(attempts).where(attempts.c.job_id == job_id).order_by(*_NEWEST_FIRST)
        rows = self._connection.execute(newest.limit(MAX_LETTER_ATTEMPTS))
        known = {_fence(row): dict(row._mapping) for row in rows} | self._known[job_id]
        counted = select(func.count()).select_from(attempts).where(attempts.c.job_id == job_id)
        new = sum(is_new for (changed_id, _), is_new in self._changed.items() if changed_id == job_id)
        total = self._connection.execute(counted).scalar_one() + new
        return letter_history([known[fence] for fence in sorted(known)], total)

    def write(self, connection: Connection) -> None:
        """Write what has changed."""
        rows = [(self._known[job_id][fence], is_new) for (job_id, fence), is_new in self._changed.items()]
        replaced = [{name: row[name] for name in _KEY} for row, is_new in rows if not is_new]
        delete_rows(connection, attempts, replaced)
        insert_rows(connection, attempts, [row for row, _ in rows])

    def _change(self, job_id: JobId, fence: Fence, row: _Row) -> None:
        is_new = fence not in self._known[job_id]
        self._changed.setdefault((job_id, fence), is_new)
        self._known[job_id][fence] = row


@cache
def _attempts_of(postgres: bool) -> Select[Any]:
    number = attempts.c.dispatch
    if postgres:
        is_named = number == any_(bindparam("numbers", type_=postgresql.ARRAY(Integer)))
    else:
        is_named = number.in_(bindparam("numbers", expanding=True, type_=Integer))
    return select(attempts).where(is_among(postgres, attempts.c.job_id), is_named)


def _fence(row: Any) -> Fence:
    return Fence(row.dispatch, row.attempt, DrawId(row.draw_id))


def _of_outcome(outcome: Outcome) -> _Row:
    return {
        "job_id": outcome.job_id,
        "dispatch": outcome.fence.dispatch,
        "attempt": outcome.fence.attempt,
        "draw_id": outcome.fence.draw_id,
        "worker": outcome.worker,
        "run": outcome.run,
        "offset": outcome.offset,
        "ended_at": outcome.ended_at,
        "pool": None,
        "started_at": None,
        "start_offset": None,
        "cause": None,
        "went": None,
        "evidence": None,
        **_outcome_columns(outcome),
    }


def _of_end(job_id: JobId, end: AttemptEnd) -> _Row:
    return {
        "job_id": job_id,
        "dispatch": end.dispatch,
        "attempt": end.attempt,
        "draw_id": end.draw_id,
        "kind": NO_OUTCOME,
        "error": None,
        "outcome_at": None,
        "dropped": 0,
        **_end_columns(end),
    }


def _outcome_columns(outcome: Outcome) -> _Row:
    return {
        "kind": outcome.kind.value,
        "error": error_to_text(outcome.error),
        "outcome_at": outcome.ended_at,
        "dropped": outcome.dropped_ends,
    }


def _end_columns(end: AttemptEnd) -> _Row:
    return {
        "worker": end.worker,
        "run": end.run,
        "offset": end.offset,
        "ended_at": end.ended_at,
        "pool": end.pool,
        "started_at": end.started_at,
        "start_offset": end.start_offset,
        "cause": end.cause,
        "went": end.went,
        "evidence": compact_json(end.evidence) if end.evidence else None,
    }


def _place(row: _Row) -> tuple[Any, ...]:
    return row["ended_at"], row["cause"], row["went"], row["run"], row["offset"]
