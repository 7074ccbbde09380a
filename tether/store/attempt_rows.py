"""Rows of the table ``attempts``: what outcomes say of attempts, once, in whatever order they come.

Of an attempt two things may be told, each at most once that counts: how it ended (its end, in the log that an
outcome brings along), and how its dispatch ended with it (an outcome that has its fence). A row is what is
known of both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    Connection,
    Integer,
    Select,
    and_,
    any_,
    bindparam,
    delete,
    func,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql

from tether.attempts import AttemptEnd
from tether.ids import DrawId, JobId
from tether.outcomes import Fence, Outcome
from tether.store.bulk import delete_rows, insert_rows, is_among, is_postgres
from tether.store.rows import compact_json, error_to_text
from tether.store.schema import attempts

MAX_ATTEMPTS_KEPT = 1_000
"""The newest attempts of a job that are kept and told; of the others their number. One that preempted
machines run may have had many thousands."""

TRIM_BY = 100
"""A job has so many more before any is deleted: that is done once for many."""

MAX_ROWS_OF_DISPATCH = 65
"""Redis tells the newest 64 ends of a dispatch's attempts, and its outcome may name one more."""

NO_OUTCOME = ""
"""The kind of an attempt that no outcome names: its job went on in Redis, or the outcome has not come yet."""

_KEY = ("job_id", "dispatch", "attempt", "draw_id")
_NEWEST_FIRST = tuple(attempts.c[name].desc() for name in _KEY[1:])
_COUNTED = func.count().filter(attempts.c.attempt > 0) + func.coalesce(func.sum(attempts.c.dropped), 0)
"""Attempts that rows stand for. A dispatch that was never drawn has a row, and was no attempt."""

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
            dropped = former["dropped"] + outcome.dropped_ends
            row = {**former, **_outcome_columns(outcome), "dropped": dropped}
            self._change(outcome.job_id, outcome.fence, row)
        else:
            return False
        return True

    def write(self, connection: Connection) -> None:
        """Write what has changed."""
        rows = [(self._known[job_id][fence], is_new) for (job_id, fence), is_new in self._changed.items()]
        replaced = [{name: row[name] for name in _KEY} for row, is_new in rows if not is_new]
        delete_rows(connection, attempts, replaced)
        insert_rows(connection, attempts, [row for row, _ in rows])
        highest: dict[JobId, int] = {}
        for job_id, fence in self._changed:
            highest[job_id] = max(highest.get(job_id, 0), fence.dispatch)
        for job_id, dispatch in highest.items():
            if dispatch * MAX_ROWS_OF_DISPATCH > MAX_ATTEMPTS_KEPT:
                _trim(connection, job_id)

    def _change(self, job_id: JobId, fence: Fence, row: _Row) -> None:
        is_new = fence not in self._known[job_id]
        self._changed.setdefault((job_id, fence), is_new)
        self._known[job_id][fence] = row


def newest_attempts(connection: Connection, job_id: JobId, limit: int) -> list[dict[str, Any]]:
    """A job's newest rows in order. Earlier ones count as dropped with the first of them."""
    newest = select(attempts).where(attempts.c.job_id == job_id).order_by(*_NEWEST_FIRST).limit(limit)
    rows: list[dict[str, Any]] = [dict(row._mapping) for row in connection.execute(newest)]
    rows.reverse()
    if len(rows) == limit:
        total = connection.execute(select(_COUNTED).where(attempts.c.job_id == job_id)).scalar_one()
        rows[0]["dropped"] += total - sum((row["attempt"] > 0) + row["dropped"] for row in rows)
    return rows


def _trim(connection: Connection, job_id: JobId) -> None:
    """Keep a job's newest attempts; what is deleted counts as dropped with the first of them."""
    fence = tuple(attempts.c[name] for name in _KEY[1:])
    newest = select(*fence).where(attempts.c.job_id == job_id).order_by(*_NEWEST_FIRST)
    if connection.execute(newest.offset(MAX_ATTEMPTS_KEPT + TRIM_BY).limit(1)).first() is None:
        return
    first = connection.execute(newest.offset(MAX_ATTEMPTS_KEPT - 1).limit(1)).one()
    is_older = and_(attempts.c.job_id == job_id, tuple_(*fence) < tuple_(*first))
    gone = connection.execute(select(_COUNTED).where(is_older)).scalar_one()
    connection.execute(delete(attempts).where(is_older))
    is_first = and_(attempts.c.job_id == job_id, tuple_(*fence) == tuple_(*first))
    connection.execute(update(attempts).where(is_first).values(dropped=attempts.c.dropped + int(gone)))


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
