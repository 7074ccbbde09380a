"""The outbox: hand-overs to Redis that are owed, by class and lane.

A lane is what waits of one tenant for one pool in one class; it is first come, first served. Sizes stand in
the outbox, so that payloads are read only of what is placed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Integer,
    LargeBinary,
    Select,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)

from tether.envelopes import Placeable
from tether.ids import JobId, PoolName
from tether.jobs import JobState, Priority
from tether.store.bulk import is_among, is_postgres
from tether.store.placeables import PLACEABLE_COLUMNS, placeable_of
from tether.store.rows import AnyRow, UnreadableRow, optional_state
from tether.store.schema import dispatches, jobs

RANKS: Mapping[Priority, int] = {Priority.INTERACTIVE: 0, Priority.STANDARD: 1, Priority.BATCH: 2}
"""How classes are kept in the outbox: what is placed first has the least rank."""

BEFORE_ALL = ""
"""Sorts before the name of every lane."""


class Lane(NamedTuple):
    """A lane of a class that owes hand-overs: its name in the outbox, and since when the first is due."""

    name: str
    due_at: int


class OwedDispatch(NamedTuple):
    """A hand-over that is due, without what is to be handed over.

    Attributes:
      body_bytes: The size of its payload.
    """

    job_id: JobId
    dispatch: int
    due_at: int
    body_bytes: int


@dataclass(frozen=True)
class DueDispatch:
    """One hand-over to Redis, with all that the script ``place`` needs.

    Attributes:
      dispatch, pool: Which hand-over, and where to.
      requested: The end that somebody asked for: then the job is cancelled or expired, not placed.
    """

    job: Placeable
    dispatch: int
    pool: PoolName
    requested: JobState | None

    @property
    def job_id(self) -> JobId:
        return self.job.job_id


class DelayedDispatch(NamedTuple):
    """A hand-over that cannot be carried out yet: it is due again at ``due_at``, behind others."""

    job_id: JobId
    dispatch: int
    due_at: int


OUTBOX_COLUMNS = ("rank", "lane", "body_bytes")


@cache
def outbox_values(postgres: bool) -> tuple[ColumnElement[Any], ...]:
    """What the outbox keeps of a job's row, as :data:`OUTBOX_COLUMNS`."""
    others: ColumnElement[int] = literal_column(str(RANKS[Priority.STANDARD]), Integer)
    rank: ColumnElement[int] = case(
        {
            priority.value: literal_column(str(rank), Integer)
            for priority, rank in RANKS.items()
            if priority is not Priority.STANDARD
        },
        value=jobs.c.priority,
        else_=others,
    )
    size = func.octet_length(jobs.c.body) if postgres else func.length(cast(jobs.c.body, LargeBinary))
    # No pool's name has a space.
    return (
        rank.label("rank"),
        (jobs.c.pool + literal_column("' '") + jobs.c.tenant_id).label("lane"),
        size.label("body_bytes"),
    )


def owing_lanes(connection: Connection, rank: int, after: str, limit: int) -> list[Lane]:
    """Lanes of a class that owe hand-overs, now or later, by name: the ``limit`` that follow ``after``.

    It looks at one row of each lane, however many there are in it.
    """
    given = {"rank": rank, "after": after, "limit": limit}
    found = connection.execute(_lanes(), given)
    # Columns of SQLite hold whatever was written to them.
    return [
        Lane(row.lane, row.due_at)
        for row in found
        if isinstance(row.lane, str) and isinstance(row.due_at, int)
    ]


@cache
def _lanes() -> Select[Any]:
    """A loose index scan (wiki.postgresql.org/wiki/Loose_indexscan)."""
    rank = bindparam("rank", type_=Integer)

    def next_lane(after: ColumnElement[str]) -> ColumnElement[str]:
        owed = dispatches.alias()
        return select(func.min(owed.c.lane)).where(owed.c.rank == rank, owed.c.lane > after).scalar_subquery()

    one = literal_column("1", Integer)
    lanes = select(next_lane(bindparam("after")).label("lane"), one.label("n")).cte("lanes", recursive=True)
    lanes = lanes.union_all(
        select(next_lane(lanes.c.lane), lanes.c.n + 1).where(
            lanes.c.lane.is_not(None), lanes.c.n < bindparam("limit")
        )
    )
    first_due = (
        select(func.min(dispatches.c.due_at))
        .where(dispatches.c.rank == rank, dispatches.c.lane == lanes.c.lane)
        .scalar_subquery()
    )
    return select(lanes.c.lane, first_due.label("due_at")).where(lanes.c.lane.is_not(None))


def owed_in_lane(
    connection: Connection,
    rank: int,
    lane: str,
    now_ms: int,
    limit: int,
    after: tuple[int, JobId] | None = None,
) -> list[OwedDispatch]:
    """Hand-overs of a lane that are due by ``now_ms``, the longest due first.

    Args:
      after: Due time and job id of the last of the page before; None for the first page.
    """
    query = (
        select(*_OWED)
        .where(dispatches.c.rank == rank, dispatches.c.lane == lane, dispatches.c.due_at <= now_ms)
        .order_by(dispatches.c.due_at, dispatches.c.job_id)
        .limit(limit)
    )
    if after is not None:
        query = query.where(tuple_(dispatches.c.due_at, dispatches.c.job_id) > after)
    return [
        OwedDispatch(JobId(row.job_id), row.dispatch, row.due_at, _size(row.body_bytes))
        for row in connection.execute(query)
    ]


def _size(value: object) -> int:
    return value if isinstance(value, int) else 0


_OWED: tuple[Column[Any], ...] = (
    dispatches.c.job_id,
    dispatches.c.dispatch,
    dispatches.c.due_at,
    dispatches.c.body_bytes,
)


def next_due(connection: Connection) -> int | None:
    """When the next hand-over is to be carried out; None where none is owed."""
    due_at: int | None = connection.execute(select(func.min(dispatches.c.due_at))).scalar_one()
    return due_at


def strays(connection: Connection, limit: int) -> list[JobId]:
    """Jobs whose hand-overs stand in no lane of a class that there is: programs that knew none wrote them."""
    ranks = list(RANKS.values())
    in_no_lane = and_(dispatches.c.rank.in_(ranks), dispatches.c.lane.in_(_NO_LANES))
    of_no_class = or_(dispatches.c.rank < min(ranks), dispatches.c.rank > max(ranks))
    found: list[JobId] = []
    for is_stray in (in_no_lane, of_no_class):
        query = select(dispatches.c.job_id).where(is_stray).limit(limit - len(found))
        found += [JobId(row.job_id) for row in connection.execute(query)]
    return found


_NO_LANES = ("", " ")
_LOST_LANE = {"rank": RANKS[Priority.BATCH], "lane": "? ?", "body_bytes": 0}
"""Where hand-overs are put of which no job tells where they belong."""


def put_into_lanes(connection: Connection, job_ids: list[JobId]) -> None:
    """Put the hand-overs of these jobs where their jobs say that they belong."""
    found = places_in_outbox(connection, job_ids)
    for job_id in sorted(job_ids):
        known = {name: value for name, value in found.get(job_id, {}).items() if value is not None}
        values = {**_LOST_LANE, **known}
        connection.execute(update(dispatches).where(dispatches.c.job_id == job_id).values(values))


def places_in_outbox(connection: Connection, job_ids: list[JobId]) -> dict[str, dict[str, Any]]:
    """Where the hand-overs of these jobs belong, by their pools of now, as :data:`OUTBOX_COLUMNS`."""
    postgres = is_postgres(connection)
    query = select(jobs.c.job_id, *outbox_values(postgres)).where(is_among(postgres, jobs.c.job_id))
    found = connection.execute(query, {"ids": job_ids})
    return {row.job_id: {name: row._mapping[name] for name in OUTBOX_COLUMNS} for row in found}


def without_jobs(connection: Connection, job_ids: Collection[JobId]) -> set[JobId]:
    """Those of these ids under which the outbox owes a hand-over, and there is no job."""
    are_these = is_among(is_postgres(connection), dispatches.c.job_id)
    query = (
        select(dispatches.c.job_id)
        .outerjoin(jobs, jobs.c.job_id == dispatches.c.job_id)
        .where(are_these, jobs.c.job_id.is_(None))
    )
    return {JobId(row.job_id) for row in connection.execute(query, {"ids": list(job_ids)})}


def due_dispatches(connection: Connection, job_ids: Collection[JobId]) -> list[DueDispatch | UnreadableRow]:
    """The hand-overs of these jobs, as far as they are owed still, with their payloads."""
    found = connection.execute(_with_payloads(is_postgres(connection)), {"ids": list(job_ids)})
    return [due_dispatch(row) for row in found]


@cache
def _with_payloads(postgres: bool) -> Select[Any]:
    return (
        select(*DUE_COLUMNS, dispatches.c.dispatch, dispatches.c.pool)
        .join(dispatches, dispatches.c.job_id == jobs.c.job_id)
        .where(is_among(postgres, jobs.c.job_id))
    )


DUE_COLUMNS = (*PLACEABLE_COLUMNS, jobs.c.requested)
"""What :func:`due_dispatch` reads, beside ``dispatch`` and ``pool``."""


def due_dispatch(row: AnyRow) -> DueDispatch | UnreadableRow:
    """The hand-over in a row; where a value has not its column's type, the row is unreadable."""
    try:
        if not (isinstance(row.dispatch, int) and isinstance(row.pool, str)):
            raise ValueError(f"dispatch {row.dispatch!r} or pool {row.pool!r} has not its column's type")
        return DueDispatch(
            job=placeable_of(row),
            dispatch=row.dispatch,
            pool=PoolName(row.pool),
            requested=optional_state(row.requested),
        )
    except ValueError as error:
        return UnreadableRow(row.job_id, row.dispatch, str(error))


def delay_dispatches(connection: Connection, delayed: list[DelayedDispatch]) -> list[None]:
    """Make hand-overs due later. What was carried out meanwhile stays as it is."""
    # Locked in the order of all others, which lock the job before its outbox row.
    locked = select(jobs.c.job_id).where(is_among(is_postgres(connection), jobs.c.job_id))
    query = locked.order_by(jobs.c.job_id).with_for_update()
    connection.execute(query, {"ids": [item.job_id for item in delayed]}).all()
    rows = [
        {"of_job": job_id, "at_dispatch": dispatch, "to_due_at": due_at}
        for job_id, dispatch, due_at in sorted(delayed)
    ]
    connection.execute(_DELAY, rows)
    return [None] * len(delayed)


_DELAY = (
    update(dispatches)
    .where(dispatches.c.job_id == bindparam("of_job"), dispatches.c.dispatch == bindparam("at_dispatch"))
    .values(due_at=bindparam("to_due_at"))
)
