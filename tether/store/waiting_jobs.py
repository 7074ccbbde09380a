"""Jobs that wait in the database: parked, since no pool can serve them, or for their next attempt.

They are read by the model that they need. What waits for a model that nobody serves is never read, and costs
nothing however much it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Connection, Select, bindparam, literal_column, select, update

from tether.envelopes import Placeable
from tether.ids import JobId, PoolName
from tether.jobs import JobState
from tether.store.bulk import given_rows, is_among, is_postgres, lock_jobs, update_rows
from tether.store.holds import CAPACITY, Moves, free_holds, move_counters
from tether.store.placeables import PLACEABLE_COLUMNS, placeable_of
from tether.store.rows import AnyRow, JobRow, UnreadableRow, compact_json
from tether.store.schema import IS_PLACEABLE, IS_RETRYING, jobs

MAX_TIME_MS = 2**63 - 1
"""No time is as late, in milliseconds since the epoch."""


MAX_IN_VAIN = 2
"""A job that was handed over in vain so often goes to another pool than the last, where there is one."""


class KeptModel(NamedTuple):
    """A model as rows of jobs keep it. A version is empty in rows of programs that did not keep any."""

    model: str
    model_version: str


@dataclass(frozen=True)
class WaitingJob:
    """A job that waits for its next placement.

    Attributes:
      dispatch: Its newest hand-over, which the next one follows; 0 where there was none.
      attempts: Attempts that failed so far.
      pool: Where it was handed over last; None where it was not.
    """

    job: Placeable
    dispatch: int
    attempts: int
    pool: PoolName | None = None

    @property
    def avoided_pool(self) -> PoolName | None:
        """The pool that gets it only if no other can serve it, since it was handed over in vain more than
        once."""
        return self.pool if self.dispatch - self.attempts >= MAX_IN_VAIN else None

    @property
    def job_id(self) -> JobId:
        return self.job.job_id


class DelayedJob(NamedTuple):
    """A waiting job that could not be handled: a pool is chosen for it again at ``due_at``, behind others."""

    job_id: JobId
    due_at: int


class Postponement(NamedTuple):
    """No pool can serve a waiting job: it is parked. From ``due_at`` on, a pool is chosen for it again."""

    job_id: JobId
    from_dispatch: int
    due_at: int
    now_ms: int


class DueRetry(NamedTuple):
    """A job that is due for its next attempt; ``dispatch`` is its newest hand-over."""

    job_id: JobId
    dispatch: int
    due_at: int
    kept: KeptModel


def next_waiting(connection: Connection, served: Sequence[KeptModel]) -> dict[KeptModel, int]:
    """When the next waiting job of each of these models may be placed; models without one are left out."""
    if not served:
        return {}
    rows = compact_json([kept._asdict() for kept in served])
    found = connection.execute(_next_waiting(is_postgres(connection)), {"rows": rows})
    return {KeptModel(row.model, row.model_version): row.due_at for row in found if row.due_at is not None}


def waiting_ids(connection: Connection, kept: KeptModel, now_ms: int, limit: int) -> list[JobId]:
    """The jobs that wait for a model and may be placed by ``now_ms``, the longest due first. Where an end was
    asked for, a job is left out."""
    found = connection.execute(_WAITING_IDS, {**kept._asdict(), "now_ms": now_ms, "limit": limit})
    return list(found.scalars())


def waiting(connection: Connection, job_ids: Sequence[JobId]) -> list[WaitingJob | UnreadableRow]:
    """Those of these jobs that wait, with their payloads, the longest due first."""
    found = connection.execute(_waiting(is_postgres(connection)), {"ids": list(job_ids)})
    return [_waiting_job(row) for row in found]


def _waiting_job(row: AnyRow) -> WaitingJob | UnreadableRow:
    try:
        if not (isinstance(row.dispatch, int) and isinstance(row.attempts, int)):
            raise ValueError(f"dispatch {row.dispatch!r} or attempts {row.attempts!r} is no whole number")
        pool = PoolName(row.pool) if isinstance(row.pool, str) else None
        return WaitingJob(placeable_of(row), row.dispatch, row.attempts, pool)
    except ValueError as error:
        return UnreadableRow(JobId(row.job_id), row.dispatch, str(error))


def due_retry_ids(connection: Connection, now_ms: int, limit: int) -> list[JobId]:
    """Jobs that are due for their next attempt by ``now_ms``, the longest due first, whoever serves them."""
    return list(connection.execute(_DUE_RETRY_IDS, {"now_ms": now_ms, "limit": limit}).scalars())


def due_retries(connection: Connection, job_ids: Sequence[JobId]) -> list[DueRetry]:
    """Those of these jobs that wait for their next attempt, without their payloads."""
    found = connection.execute(_due_retries(is_postgres(connection)), {"ids": list(job_ids)})
    return [
        DueRetry(JobId(row.job_id), row.dispatch, row.due_at, KeptModel(row.model, row.model_version))
        for row in found
    ]


def postpone(connection: Connection, postponements: list[Postponement]) -> list[bool]:
    """Park waiting jobs that no pool can serve until their new ``due_at``. They hold no pool's capacity.

    Returns:
      For each whether the job still waited at ``from_dispatch``, and nobody asked for its end.
    """
    rows = lock_jobs(connection, [item.job_id for item in postponements])
    parked = {
        item.job_id: item for item in postponements if waits_at(rows.get(item.job_id), item.from_dispatch)
    }
    if parked:
        changes = [
            {
                "job_id": job_id,
                "state": JobState.PARKED.value,
                "due_at": parked[job_id].due_at,
                "updated_at": parked[job_id].now_ms,
            }
            for job_id in sorted(parked)
        ]
        update_rows(connection, jobs, "job_id", changes)
        moves: Moves = Counter()
        free_holds(connection, list(parked), (CAPACITY,), moves)
        move_counters(connection, moves)
    return [waits_at(rows.get(item.job_id), item.from_dispatch) for item in postponements]


def delay_waiting(connection: Connection, delayed: list[DelayedJob]) -> list[None]:
    """Make waiting jobs due later. What does not wait any more stays as it is. Rows are not read: they may be
    unreadable."""
    postgres = is_postgres(connection)
    # Locked in the order of their ids, as everywhere.
    connection.execute(_lock_ids(postgres), {"ids": [item[0] for item in delayed]}).all()
    rows = [{"of_job": job_id, "to_due_at": due_at} for job_id, due_at in sorted(delayed)]
    connection.execute(_DELAY, rows)
    return [None] * len(delayed)


def waits_at(row: JobRow | None, dispatch: int) -> bool:
    """Whether a job waits after this hand-over, and nobody asked for its end."""
    return (
        row is not None
        and row.state in (JobState.PARKED, JobState.WAITING_RETRY)
        and row.dispatch == dispatch
        and row.requested is None
    )


_WAITING_IDS = (
    select(jobs.c.job_id)
    .where(
        IS_PLACEABLE,
        jobs.c.model == bindparam("model"),
        jobs.c.model_version == bindparam("model_version"),
        jobs.c.due_at <= bindparam("now_ms"),
    )
    .order_by(jobs.c.due_at, jobs.c.job_id)
    .limit(bindparam("limit"))
)

_DUE_RETRY_IDS = (
    select(jobs.c.job_id)
    .where(IS_RETRYING, jobs.c.due_at <= bindparam("now_ms"), jobs.c.requested.is_(None))
    .order_by(jobs.c.due_at, jobs.c.job_id)
    .limit(bindparam("limit"))
)


@cache
def _waiting(postgres: bool) -> Select[Any]:
    query = select(*PLACEABLE_COLUMNS, jobs.c.dispatch, jobs.c.attempts, jobs.c.pool)
    query = query.where(IS_PLACEABLE, is_among(postgres, jobs.c.job_id))
    return query.order_by(jobs.c.due_at, jobs.c.job_id)


@cache
def _due_retries(postgres: bool) -> Select[Any]:
    query = select(jobs.c.job_id, jobs.c.dispatch, jobs.c.due_at, jobs.c.model, jobs.c.model_version)
    return query.where(IS_RETRYING, jobs.c.requested.is_(None), is_among(postgres, jobs.c.job_id))


_DELAY = (
    update(jobs)
    .where(IS_PLACEABLE, jobs.c.job_id == bindparam("of_job"))
    .values(due_at=bindparam("to_due_at"))
)


@cache
def _lock_ids(postgres: bool) -> Select[Any]:
    query = select(jobs.c.job_id).where(is_among(postgres, jobs.c.job_id))
    return query.order_by(jobs.c.job_id).with_for_update()


@cache
def _next_waiting(postgres: bool) -> Select[Any]:
    given = given_rows(postgres, jobs, ("model", "model_version"))
    # One look into the index for each model: an aggregate over them would read every waiting job.
    first = (
        select(jobs.c.due_at)
        .where(
            IS_PLACEABLE,
            jobs.c.model == given.c.model,
            jobs.c.model_version == given.c.model_version,
            # In SQLite a column of numbers may hold a text, which is above all numbers.
            jobs.c.due_at < literal_column(str(MAX_TIME_MS), BigInteger),
        )
        .order_by(jobs.c.due_at)
        .limit(1)
        .scalar_subquery()
    )
    return select(given.c.model, given.c.model_version, first.label("due_at"))
