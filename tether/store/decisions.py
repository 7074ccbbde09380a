"""Choices of pools, kept with the hand-overs that they were made for, in the same transaction.

A row is one hand-over's. Where no pool could serve the job, it is that of the hand-over to come, which
replaces it. Rows go with their job.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, delete, select

from tether.ids import JobId, PoolName
from tether.store.bulk import delete_rows, insert_absent_rows, insert_rows, is_among, is_postgres
from tether.store.schema import decisions, jobs

MAX_DECISIONS_KEPT = 100
"""The newest of a job. One that preempted machines run may be handed over many thousands of times."""

_MAX_MS = 2**53
"""Longer waits count as this."""

REPEATED = ""
"""The choice of a hand-over to the same pool again, for which none was made."""


@dataclass(frozen=True)
class Decision:
    """A choice of a pool, to be kept.

    Attributes:
      decided_at: In milliseconds since the epoch.
      expected: The wait and the whole time in milliseconds, of each pool that can serve the job; see
        :class:`~tether.scheduling.affinity.ExpectedTimes`.
      choice: All terms, see :func:`~tether.store.decision_texts.choice_text`.
    """

    decided_at: int
    choice: str
    expected: Mapping[PoolName, tuple[int, int]] = field(default_factory=lambda: MappingProxyType({}))


class Decided(NamedTuple):
    """The choice that a hand-over was made by.

    Attributes:
      pool: None where none can serve the job: the hand-over is to come.
      decision: None where nothing is to be kept.
    """

    job_id: JobId
    dispatch: int
    pool: PoolName | None
    decision: Decision | None


def insert_decisions(connection: Connection, decided: Iterable[Decided]) -> None:
    """Keep choices of hand-overs that have none yet."""
    insert_absent_rows(connection, decisions, _rows(decided))


def replace_decisions(connection: Connection, decided: Iterable[Decided]) -> None:
    """Keep choices, in place of what is kept of the same hand-overs, and no more than the newest of a job."""
    rows = _rows(decided)
    _put(connection, rows)
    for row in rows:
        if row["dispatch"] > MAX_DECISIONS_KEPT:
            is_old = decisions.c.dispatch <= row["dispatch"] - MAX_DECISIONS_KEPT
            connection.execute(delete(decisions).where(decisions.c.job_id == row["job_id"], is_old))


def note_repeated(
    connection: Connection, handed_over: Mapping[JobId, tuple[int, PoolName]], now_ms: int
) -> None:
    """Note of hand-overs that no choice was made for them: they go to the pool that their jobs have.

    Args:
      handed_over: Number and pool, by job.
    """
    rows = [
        _row(Decided(job_id, dispatch, pool, Decision(now_ms, REPEATED)))
        for job_id, (dispatch, pool) in handed_over.items()
    ]
    _put(connection, rows)


def decisions_of(connection: Connection, job_id: JobId) -> Sequence[Mapping[str, Any]]:
    """What is kept of a job's hand-overs, the first one first, as columns of the table ``decisions``."""
    query = select(decisions).where(decisions.c.job_id == job_id).order_by(decisions.c.dispatch)
    return [dict(row._mapping) for row in connection.execute(query)]


class ExpectedWait(NamedTuple):
    """What was expected of a hand-over, and from when: milliseconds, and milliseconds since the epoch."""

    job_id: JobId
    dispatch: int
    decided_at: int
    not_before: int
    wait_ms: int


def expected_waits(connection: Connection, job_ids: Collection[JobId]) -> list[ExpectedWait]:
    """What was expected of the hand-overs of these jobs, where anything was."""
    found = connection.execute(_expected_waits(is_postgres(connection)), {"ids": list(job_ids)})
    waits = [ExpectedWait(*row) for row in found]
    # In SQLite a column of numbers may hold a text.
    return [wait for wait in waits if all(isinstance(value, int) for value in wait[1:])]


def _put(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    delete_rows(connection, decisions, [{name: row[name] for name in ("job_id", "dispatch")} for row in rows])
    insert_rows(connection, decisions, rows)


@cache
def _expected_waits(postgres: bool) -> Select[Any]:
    return (
        select(
            decisions.c.job_id,
            decisions.c.dispatch,
            decisions.c.decided_at,
            jobs.c.not_before,
            decisions.c.wait_ms,
        )
        .join(jobs, jobs.c.job_id == decisions.c.job_id)
        .where(is_among(postgres, decisions.c.job_id), decisions.c.wait_ms.is_not(None))
    )


def _rows(decided: Iterable[Decided]) -> list[dict[str, Any]]:
    return [_row(each) for each in decided if each.decision is not None]


def _row(decided: Decided) -> dict[str, Any]:
    job_id, dispatch, pool, decision = decided
    assert decision is not None
    wait_ms, total_ms = (None, None) if pool is None else decision.expected.get(pool, (None, None))
    return {
        "job_id": job_id,
        "dispatch": dispatch,
        "decided_at": decision.decided_at,
        "pool": pool,
        "wait_ms": None if wait_ms is None else min(wait_ms, _MAX_MS),
        "total_ms": None if total_ms is None else min(total_ms, _MAX_MS),
        "choice": decision.choice,
    }
