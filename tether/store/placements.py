"""Hand-over down: what was placed, waiting jobs that are placed again, what Redis should have."""

from __future__ import annotations

from enum import Enum, auto
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Integer,
    Select,
    Text,
    Update,
    case,
    cast,
    literal_column,
    select,
    update,
)

from tether.ids import JobId, PoolName, TenantId
from tether.jobs import JobError, JobState, Priority
from tether.store.beginnings import note_begun
from tether.store.bulk import delete_of_jobs, is_among, is_postgres, lock_jobs
from tether.store.capacity import NO_BOUND, has_room, share_name
from tether.store.decisions import Decided, Decision, note_repeated, replace_decisions
from tether.store.hand_overs import hand_over
from tether.store.holds import CAPACITY, SHARE, move_counters
from tether.store.outbox import DUE_COLUMNS, DueDispatch, due_dispatch
from tether.store.rows import AnyRow, JobRow, UnreadableRow, error_from_text
from tether.store.schema import IS_IN_REDIS, dispatches, jobs
from tether.store.waiting_jobs import KeptModel, waits_at


class PlacedJob(NamedTuple):
    """A job that Redis should have.

    Attributes:
      dispatch: Its newest hand-over; 0 where its row has no number of it.
      priority: As the row has it; empty where that is none, or nobody has looked.
    """

    job_id: JobId
    dispatch: int
    priority: str = ""


class PlacedDispatch(NamedTuple):
    """A hand-over that Redis has, and the priority with which it was placed."""

    job_id: JobId
    dispatch: int
    priority: Priority


class RecordResult(Enum):
    """Whether a hand-over is carried out.

    Values:
      RECORDED: It is: the row is ``placed``, or waits again because the outcome came first.
      OUTDATED: The job has got another priority since it was read. It is owed until Redis has that.
      STALE: It is not the job's newest hand-over, or the job is final.
    """

    RECORDED = auto()
    OUTDATED = auto()
    STALE = auto()


class Placement(NamedTuple):
    """A choice for a waiting job: ``pool``, if ``from_dispatch`` is its newest hand-over still, and the pool
    has fewer than ``bound`` jobs. ``decision`` is what is kept of it."""

    job_id: JobId
    from_dispatch: int
    pool: PoolName
    now_ms: int
    decision: Decision | None = None
    bound: int = NO_BOUND


class NotPlaced(Enum):
    """Why a waiting job was not handed over.

    Values:
      MOVED_ON: It no longer waits at that hand-over, or somebody asked for its end.
      NO_ROOM: Its pool takes no more jobs, or no more of its tenant. It waits as before.
    """

    MOVED_ON = auto()
    NO_ROOM = auto()


_DISPATCH = cast(jobs.c.dispatch, Integer).label("dispatch")
"""As a number whatever it is: SQLite keeps a text in a column of numbers."""

_PRIORITY = case(
    {priority.value: literal_column(f"'{priority.value}'", Text) for priority in Priority},
    value=jobs.c.priority,
    else_=literal_column("''", Text),
).label("priority")
"""Empty where it is none: SQLite's driver gives up all rows where one has bytes that are no text."""


def placed_jobs(connection: Connection, after_job_id: JobId, limit: int) -> list[PlacedJob]:
    """A page of what Redis should have, recorded as placed or running, by job id. No payload is read.

    Args:
      after_job_id: The last id of the page before; ``NO_JOB`` for the first page.
    """
    query = (
        select(jobs.c.job_id, _DISPATCH, _PRIORITY)
        .where(IS_IN_REDIS, jobs.c.job_id > after_job_id)
        .order_by(jobs.c.job_id)
        .limit(limit)
    )
    return [PlacedJob(JobId(row.job_id), row.dispatch, row.priority) for row in connection.execute(query)]


def placed_rows(connection: Connection, job_ids: list[JobId]) -> list[DueDispatch | UnreadableRow]:
    """Those of these jobs that are recorded as placed or running still, with their payloads, by job id."""
    query = (
        select(*DUE_COLUMNS, jobs.c.dispatch, jobs.c.pool)
        .where(IS_IN_REDIS, is_among(is_postgres(connection), jobs.c.job_id))
        .order_by(jobs.c.job_id)
    )
    return [due_dispatch(row) for row in connection.execute(query, {"ids": job_ids})]


def states(connection: Connection, job_ids: list[JobId]) -> dict[JobId, tuple[JobState, int]]:
    """State and newest hand-over of these jobs, 0 where the row has no number of it; a job that is not known
    is left out."""
    are_these = is_among(is_postgres(connection), jobs.c.job_id)
    query = select(jobs.c.job_id, jobs.c.state, _DISPATCH).where(are_these)
    found = connection.execute(query, {"ids": job_ids})
    return {JobId(row.job_id): (JobState(row.state), row.dispatch) for row in found}


def pools_of(connection: Connection, job_ids: list[JobId]) -> dict[JobId, PoolName]:
    """The pools of those of these jobs that are recorded as placed or running."""
    query = select(jobs.c.job_id, jobs.c.pool).where(
        IS_IN_REDIS, is_among(is_postgres(connection), jobs.c.job_id)
    )
    found = connection.execute(query, {"ids": job_ids})
    return {JobId(row.job_id): PoolName(row.pool or "") for row in found}


def models_of(connection: Connection, job_ids: list[JobId]) -> dict[JobId, KeptModel]:
    """The models of these jobs; a job that is not known is left out."""
    are_these = is_among(is_postgres(connection), jobs.c.job_id)
    query = select(jobs.c.job_id, jobs.c.model, jobs.c.model_version).where(are_these)
    found = connection.execute(query, {"ids": job_ids})
    return {JobId(row.job_id): KeptModel(row.model, row.model_version) for row in found}


def errors_of(connection: Connection, job_ids: list[JobId]) -> list[tuple[JobId, JobError]]:
    """Why these jobs failed, or their last attempts; a job without an error is left out."""
    are_these = is_among(is_postgres(connection), jobs.c.job_id)
    query = select(jobs.c.job_id, jobs.c.error).where(are_these, jobs.c.error.is_not(None))
    found = [(row.job_id, error_from_text(row.error)) for row in connection.execute(query, {"ids": job_ids})]
    return [(JobId(job_id), error) for job_id, error in found if error is not None]


def ended_before(connection: Connection, job_ids: list[JobId], before_ms: int) -> set[JobId]:
    """Those of these jobs whose end was committed before a time in milliseconds since the epoch."""
    are_these = is_among(is_postgres(connection), jobs.c.job_id)
    query = select(jobs.c.job_id).where(are_these, jobs.c.finished_at < before_ms)
    return {JobId(row.job_id) for row in connection.execute(query, {"ids": job_ids})}


def record_placed(connection: Connection, placed: list[PlacedDispatch]) -> list[RecordResult]:
    """Record that Redis has these hand-overs: their outbox rows go, unless their jobs have got other
    priorities since."""
    statement = _lock_states(is_postgres(connection))
    items = list(map(PlacedDispatch._make, placed))
    found = connection.execute(statement, {"ids": [item.job_id for item in items]})
    rows = {row.job_id: row for row in found}
    results = [_recorded(rows.get(item.job_id), item) for item in items]
    arrived = [
        item.job_id
        for item, result in zip(items, results, strict=True)
        if result is RecordResult.RECORDED and rows[item.job_id].state == JobState.ACCEPTED
    ]
    if arrived:
        delete_of_jobs(connection, dispatches, arrived)
        connection.execute(_mark_placed(is_postgres(connection)), {"ids": arrived})
    return results


def _recorded(row: AnyRow | None, item: PlacedDispatch) -> RecordResult:
    if row is None or row.dispatch != item.dispatch or JobState(row.state).is_final:
        return RecordResult.STALE
    return RecordResult.RECORDED if row.priority == item.priority else RecordResult.OUTDATED


@cache
def _lock_states(postgres: bool) -> Select[Any]:
    are_these = is_among(postgres, jobs.c.job_id)
    query = select(jobs.c.job_id, jobs.c.dispatch, jobs.c.state, _PRIORITY).where(are_these)
    return query.order_by(jobs.c.job_id).with_for_update()


@cache
def _mark_placed(postgres: bool) -> Update:
    are_these = is_among(postgres, jobs.c.job_id)
    return update(jobs).where(are_these).values(state=JobState.PLACED.value)


def replace(connection: Connection, placements: list[Placement]) -> list[int | NotPlaced]:
    """Hand waiting jobs over to the pools that were chosen: each gets its next dispatch, ``accepted``, with
    an outbox row and a hold on the new pool's capacity instead of one on the old.

    Returns:
      For each the new dispatch, or why there is none.
    """
    rows = lock_jobs(connection, [placement.job_id for placement in placements])
    waiting = [each for each in placements if waits_at(rows.get(each.job_id), each.from_dispatch)]
    held = _locked_counters(connection, rows, waiting)
    chosen: dict[JobId, Placement] = {}
    answers: list[int | NotPlaced] = []
    for placement in placements:
        row = rows.get(placement.job_id)
        if row is None or placement.job_id in chosen or not waits_at(row, placement.from_dispatch):
            answers.append(NotPlaced.MOVED_ON)
            continue
        total, share = _claimed(placement.pool, row.tenant_id)
        if not has_room(placement.bound, held[total], held[share]):
            answers.append(NotPlaced.NO_ROOM)
            continue
        held[total] += 1
        held[share] += 1
        chosen[placement.job_id] = placement
        answers.append(placement.from_dispatch + 1)
    replace_decisions(
        connection,
        [Decided(job_id, p.from_dispatch + 1, p.pool, p.decision) for job_id, p in sorted(chosen.items())],
    )
    hand_over(connection, rows, {job_id: (p.pool, p.now_ms) for job_id, p in chosen.items()})
    return answers


def _claimed(pool: PoolName, tenant: TenantId) -> tuple[tuple[str, str], tuple[str, str]]:
    return (CAPACITY, pool), (SHARE, share_name(pool, tenant))


def _locked_counters(
    connection: Connection, rows: dict[JobId, JobRow], placements: list[Placement]
) -> dict[tuple[str, str], int]:
    """The counters of what these claim, locked. Only old rows hold something that a claim frees; those
    counters are locked too, since all are locked in one order."""
    names: set[tuple[str, str]] = set()
    for placement in placements:
        row = rows[placement.job_id]
        names.update(_claimed(placement.pool, row.tenant_id))
        if row.pool is not None:
            names.update(_claimed(row.pool, row.tenant_id))
    return move_counters(connection, dict.fromkeys(names, 0))


def raise_dispatches(connection: Connection, job_ids: list[JobId], now_ms: int) -> list[int | None]:
    """Hand jobs that Redis should have, or is just to get, over again under a new dispatch, to the pool they
    have: for a Redis that is built anew.

    Returns:
      For each the new dispatch; None where the job is not Redis's.
    """
    rows = lock_jobs(connection, job_ids)
    again = {
        job_id: (row.pool, now_ms)
        for job_id, row in rows.items()
        if row.pool is not None and row.state in (JobState.ACCEPTED, JobState.PLACED, JobState.RUNNING)
    }
    note_repeated(
        connection, {job_id: (rows[job_id].dispatch + 1, pool) for job_id, (pool, _) in again.items()}, now_ms
    )
    hand_over(connection, rows, again)
    # Redis has lost whether they had begun.
    note_begun(connection, [job_id for job_id in again if rows[job_id].expires_at])
    return [rows[job_id].dispatch + 1 if job_id in again else None for job_id in job_ids]
