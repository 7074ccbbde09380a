"""Hand-over down: the outbox of dispatches, what waits to be placed, what Redis should have."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, Update, func, select, update

from tether.jobs import JobState, Priority
from tether.store.bulk import delete_of_jobs, is_among, is_postgres, lock_jobs, update_rows
from tether.store.hand_overs import hand_over
from tether.store.holds import CAPACITY, Moves, free_holds, move_counters
from tether.store.rows import AnyRow, JobRow, optional_state
from tether.store.schema import IS_IN_REDIS, IS_WAITING, dispatches, jobs


@dataclass(frozen=True)
class DueDispatch:
    """One hand-over to Redis, with all that the script ``place`` needs.

    Attributes:
      deadline: Milliseconds since the epoch; 0 is never.
      cost: Estimated input tokens.
      requested: The end that somebody asked for: then the job is cancelled or expired, not placed.
    """

    job_id: str
    state: JobState
    dispatch: int
    pool: str
    tenant_id: str
    priority: Priority
    weight: float
    deadline: int
    cost: int
    body: str
    requested: JobState | None


@dataclass(frozen=True)
class WaitingJob:
    """A job that waits for its next placement, with what the choice of a pool needs.

    Attributes:
      weight: The tenant's, as the pool's fairness counts it.
      deadline: Milliseconds since the epoch; 0 is never.
      cost: Estimated input tokens.
      dispatch: Its newest hand-over, which the next one follows; 0 where there was none.
      attempts: Attempts that failed so far.
    """

    job_id: str
    tenant_id: str
    model: str
    priority: Priority
    labels: Mapping[str, str]
    body: str
    weight: float
    deadline: int
    cost: int
    dispatch: int
    attempts: int


class Placed(NamedTuple):
    """A hand-over that Redis has."""

    job_id: str
    dispatch: int


class Placement(NamedTuple):
    """A choice for a waiting job: ``pool``, if ``from_dispatch`` is its newest hand-over still."""

    job_id: str
    from_dispatch: int
    pool: str
    now_ms: int


class Postponement(NamedTuple):
    """No pool can serve a waiting job: it is looked at again at ``due_at``, and parked until then."""

    job_id: str
    from_dispatch: int
    due_at: int
    now_ms: int


_DUE_COLUMNS = (
    jobs.c.job_id,
    jobs.c.state,
    jobs.c.tenant_id,
    jobs.c.priority,
    jobs.c.weight,
    jobs.c.deadline,
    jobs.c.cost,
    jobs.c.body,
    jobs.c.requested,
)


def due(connection: Connection, now_ms: int, limit: int) -> list[DueDispatch]:
    """Hand-overs that are to be carried out by ``now_ms``, the longest due first."""
    query = (
        select(*_DUE_COLUMNS, dispatches.c.dispatch, dispatches.c.pool)
        .join(dispatches, dispatches.c.job_id == jobs.c.job_id)
        .where(dispatches.c.due_at <= now_ms)
        .order_by(dispatches.c.due_at, dispatches.c.job_id)
        .limit(limit)
    )
    return _due_dispatches(connection, query)


def next_due(connection: Connection) -> int | None:
    """When the next hand-over is to be carried out; None where none is owed."""
    found: int | None = connection.execute(select(func.min(dispatches.c.due_at))).scalar_one()
    return found


def next_waiting(connection: Connection) -> int | None:
    """When the next waiting job may be placed; None where none waits."""
    query = select(func.min(jobs.c.due_at)).where(IS_WAITING, jobs.c.requested.is_(None))
    found: int | None = connection.execute(query).scalar_one()
    return found


def placed_rows(connection: Connection, after_job_id: str, limit: int) -> list[DueDispatch]:
    """A page of what Redis should have: rows recorded as placed or running, by job id.

    Args:
      after_job_id: The last id of the page before; empty for the first page.
    """
    query = (
        select(*_DUE_COLUMNS, jobs.c.dispatch, jobs.c.pool)
        .where(IS_IN_REDIS, jobs.c.job_id > after_job_id)
        .order_by(jobs.c.job_id)
        .limit(limit)
    )
    return _due_dispatches(connection, query)


def waiting(connection: Connection, now_ms: int, limit: int, after_job_id: str = "") -> list[WaitingJob]:
    """A page of the jobs, parked or waiting for a retry, that may be placed by ``now_ms``: the oldest first.
    Where an end was asked for, a job is left out.

    Args:
      after_job_id: The last id of the page before; empty for the first page.
    """
    columns = [jobs.c[name] for name in WaitingJob.__dataclass_fields__]
    query = (
        select(*columns)
        .where(
            IS_WAITING,
            jobs.c.job_id > after_job_id,
            jobs.c.due_at <= now_ms,
            jobs.c.requested.is_(None),
        )
        .order_by(jobs.c.job_id)
        .limit(limit)
    )
    return [
        WaitingJob(
            **{
                **row._mapping,
                "priority": Priority(row.priority),
                "labels": json.loads(row.labels),
            }
        )
        for row in connection.execute(query)
    ]


def states(connection: Connection, job_ids: list[str]) -> dict[str, tuple[JobState, int]]:
    """State and newest hand-over of these jobs; a job that is not known is left out."""
    are_these = is_among(is_postgres(connection), jobs.c.job_id)
    query = select(jobs.c.job_id, jobs.c.state, jobs.c.dispatch).where(are_these)
    found = connection.execute(query, {"ids": job_ids})
    return {row.job_id: (JobState(row.state), row.dispatch) for row in found}


def record_placed(connection: Connection, placed: list[tuple[str, int]]) -> list[bool]:
    """Record that Redis has these hand-overs, as (job id, dispatch): their outbox rows go.

    Returns:
      For each whether it is the job's newest hand-over and the job is not final: the row is ``placed``, or
      waits again because the outcome came first.
    """
    statement = _lock_states(is_postgres(connection))
    found = connection.execute(statement, {"ids": [job_id for job_id, _ in placed]})
    rows = {row.job_id: (row.dispatch, JobState(row.state)) for row in found}
    current = [
        (job_id, dispatch)
        for job_id, dispatch in placed
        if job_id in rows and rows[job_id][0] == dispatch and not rows[job_id][1].is_final
    ]
    arrived = [job_id for job_id, _ in current if rows[job_id][1] is JobState.ACCEPTED]
    if arrived:
        delete_of_jobs(connection, dispatches, arrived)
        connection.execute(_mark_placed(is_postgres(connection)), {"ids": arrived})
    known = set(current)
    return [(job_id, dispatch) in known for job_id, dispatch in placed]


@cache
def _lock_states(postgres: bool) -> Select[Any]:
    are_these = is_among(postgres, jobs.c.job_id)
    query = select(jobs.c.job_id, jobs.c.dispatch, jobs.c.state).where(are_these)
    return query.order_by(jobs.c.job_id).with_for_update()


@cache
def _mark_placed(postgres: bool) -> Update:
    are_these = is_among(postgres, jobs.c.job_id)
    return update(jobs).where(are_these).values(state=JobState.PLACED.value)


def replace(connection: Connection, placements: list[Placement]) -> list[int | None]:
    """Hand waiting jobs over to the pools that were chosen: each gets its next dispatch, ``accepted``, with
    an outbox row and a hold on the new pool's capacity instead of one on the old.

    Returns:
      For each the new dispatch; None where the job no longer waits at ``from_dispatch``, or somebody asked
      for its end.
    """
    rows = lock_jobs(connection, [placement.job_id for placement in placements])
    chosen: dict[str, Placement] = {}
    answers: list[int | None] = []
    for placement in placements:
        row = rows.get(placement.job_id)
        if placement.job_id in chosen or not _waits_at(row, placement.from_dispatch):
            answers.append(None)
        else:
            chosen[placement.job_id] = placement
            answers.append(placement.from_dispatch + 1)
    hand_over(connection, rows, {job_id: (p.pool, p.now_ms) for job_id, p in chosen.items()})
    return answers


def postpone(connection: Connection, postponements: list[Postponement]) -> list[bool]:
    """Park waiting jobs that no pool can serve until their new ``due_at``. They hold no pool's capacity.

    Returns:
      For each whether the job still waited at ``from_dispatch``, and nobody asked for its end.
    """
    rows = lock_jobs(connection, [item.job_id for item in postponements])
    parked = {
        item.job_id: item for item in postponements if _waits_at(rows.get(item.job_id), item.from_dispatch)
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
    return [_waits_at(rows.get(item.job_id), item.from_dispatch) for item in postponements]


def recall_parked(connection: Connection, now_ms: int) -> int:
    """Make parked jobs due that were postponed, since the fleet has changed. Answers how many."""
    parked = (
        select(jobs.c.job_id)
        .where(IS_WAITING, jobs.c.state == JobState.PARKED.value)
        .where(jobs.c.due_at > now_ms, jobs.c.not_before <= now_ms)
        .order_by(jobs.c.job_id)
        .with_for_update()
    )
    locked = parked.cte() if is_postgres(connection) else parked.subquery()
    statement = update(jobs).where(jobs.c.job_id.in_(select(locked.c.job_id))).values(due_at=now_ms)
    return connection.execute(statement).rowcount


def raise_dispatches(connection: Connection, job_ids: list[str], now_ms: int) -> list[int | None]:
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
    hand_over(connection, rows, again)
    return [rows[job_id].dispatch + 1 if job_id in again else None for job_id in job_ids]


def _due_dispatches(connection: Connection, query: Select[Any]) -> list[DueDispatch]:
    def due_dispatch(row: AnyRow) -> DueDispatch:
        values = dict(row._mapping)
        values["state"] = JobState(row.state)
        values["priority"] = Priority(row.priority)
        values["requested"] = optional_state(row.requested)
        return DueDispatch(**values)

    return [due_dispatch(row) for row in connection.execute(query)]


def _is_current(row: JobRow | None, dispatch: int) -> bool:
    return row is not None and not row.state.is_final and row.dispatch == dispatch


def _waits_at(row: JobRow | None, dispatch: int) -> bool:
    return (
        row is not None
        and row.state in (JobState.PARKED, JobState.WAITING_RETRY)
        and row.dispatch == dispatch
        and row.requested is None
    )
