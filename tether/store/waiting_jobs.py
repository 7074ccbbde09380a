"""Jobs that wait in the database: parked, since no pool can serve them, or for their next attempt.

They are read by the model that they need, and by what else they need of a pool. What waits for what nobody
serves is never read, and costs nothing however much it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    Text,
    and_,
    bindparam,
    literal_column,
    select,
    update,
)

from tether.envelopes import Placeable
from tether.ids import JobId, PoolName
from tether.jobs import JobState
from tether.store.bulk import given_rows, is_among, is_postgres, lock_jobs, update_rows
from tether.store.decisions import Decided, Decision, replace_decisions
from tether.store.holds import CAPACITY, Moves, free_holds, move_counters
from tether.store.placeables import PLACEABLE_COLUMNS, placeable_of
from tether.store.rows import AnyRow, JobRow, UnreadableRow, compact_json
from tether.store.schema import HAS_NEEDS, HAS_NO_NEEDS, IS_PLACEABLE, IS_RETRYING, jobs

MAX_TIME_MS = 2**63 - 1
"""No time is as late, in milliseconds since the epoch."""


MAX_IN_VAIN = 2
"""A job that was handed over in vain so often goes to another pool than the last, where there is one."""


class KeptModel(NamedTuple):
    """A model as rows of jobs keep it, and what else such jobs need of a pool.

    Attributes:
      model_version: Empty in rows of programs that did not keep any.
      needs: See :func:`~tether.store.needs.needs_of`.
      vram: Where there is a size among the needs: bytes, of jobs that need no more. Else 0.
    """

    model: str
    model_version: str
    needs: str = ""
    vram: int = 0


@dataclass(frozen=True)
class WaitingJob:
    """A job that waits for its next placement.

    Attributes:
      dispatch: Its newest hand-over, which the next one follows; 0 where there was none.
      attempts: Attempts that failed so far.
      pool: Where it was handed over last; None where it was not.
      moved_from, moved_to: The pool out of which an operator moved it last, and the one that was named for
        it; None where there is none.
      due_at: Since when it may be placed, in milliseconds since the epoch.
      is_late: Whether it is placed before more urgent ones, and may fill their part of a pool.
    """

    job: Placeable
    dispatch: int
    attempts: int
    pool: PoolName | None = None
    due_at: int = 0
    moved_from: PoolName | None = None
    moved_to: PoolName | None = None
    is_late: bool = False

    @property
    def avoided_pool(self) -> PoolName | None:
        """The pool that gets it only if no other can serve it: it was handed over there in vain more than
        once, or moved out of it."""
        return self.pool if self.dispatch - self.attempts >= MAX_IN_VAIN else self.moved_from

    @property
    def job_id(self) -> JobId:
        return self.job.job_id


class DelayedJob(NamedTuple):
    """A waiting job that could not be handled: a pool is chosen for it again at ``due_at``, behind others."""

    job_id: JobId
    due_at: int


class Postponement(NamedTuple):
    """No pool can serve a waiting job: it is parked. From ``due_at`` on, a pool is chosen for it again.
    ``decision`` is what is kept of the choice that found none."""

    job_id: JobId
    from_dispatch: int
    due_at: int
    now_ms: int
    decision: Decision | None = None


class DueRetry(NamedTuple):
    """A job that is due for its next attempt; ``dispatch`` is its last hand-over, ``kept`` what it needs."""

    job_id: JobId
    dispatch: int
    due_at: int
    kept: KeptModel


def next_waiting(connection: Connection, served: Sequence[KeptModel]) -> dict[KeptModel, int]:
    """When the next waiting job of each of these models may be placed; models without one are left out."""
    due_at: dict[KeptModel, int] = {}
    for kind in _Kind:
        kept = [each for each in served if _Kind.of(each) is kind]
        if kept:
            rows = compact_json([_columns_of(each) for each in kept])
            found = connection.execute(_next_waiting(is_postgres(connection), kind), {"rows": rows})
            due_at |= {KeptModel(*row[:4]): row.due_at for row in found if row.due_at is not None}
    return due_at


def models_with_needs(connection: Connection, models: Collection[str]) -> set[str]:
    """Those of these models for which jobs wait that need more of a pool than the model."""
    if not models:
        return set()
    rows = compact_json([{"model": model} for model in sorted(models)])
    found = connection.execute(_with_needs(is_postgres(connection)), {"rows": rows})
    return {row.model for row in found if row.job_id is not None}


def waiting_ids(connection: Connection, kept: KeptModel, now_ms: int, limit: int) -> list[JobId]:
    """The jobs that wait for a model and may be placed by ``now_ms``, the longest due first. Where an end was
    asked for, a job is left out."""
    query, given = _waiting_ids(_Kind.of(kept)), _columns_of(kept)
    found = connection.execute(query, {**given, "now_ms": now_ms, "limit": limit})
    return list(found.scalars())


def waiting(connection: Connection, job_ids: Sequence[JobId]) -> list[WaitingJob | UnreadableRow]:
    """Those of these jobs that wait, with their payloads, the longest due first."""
    found = connection.execute(_waiting(is_postgres(connection)), {"ids": list(job_ids)})
    return [_waiting_job(row) for row in found]


def _waiting_job(row: AnyRow) -> WaitingJob | UnreadableRow:
    try:
        if not (isinstance(row.dispatch, int) and isinstance(row.attempts, int)):
            raise ValueError(f"dispatch {row.dispatch!r} or attempts {row.attempts!r} is no whole number")
        pool, moved_from, moved_to = map(_pool_in, (row.pool, row.moved_from, row.moved_to))
        due_at = row.due_at if isinstance(row.due_at, int) else 0
        return WaitingJob(placeable_of(row), row.dispatch, row.attempts, pool, due_at, moved_from, moved_to)
    except ValueError as error:
        return UnreadableRow(JobId(row.job_id), row.dispatch, str(error))


def _pool_in(value: object) -> PoolName | None:
    return PoolName(value) if isinstance(value, str) else None


class NeededJob(NamedTuple):
    """A job as far as a pool is chosen for it; its payload is empty.

    Attributes:
      dispatch: Its newest hand-over.
      attempts: Attempts that failed so far.
      has_request: Whether somebody asked for its end.
    """

    job: Placeable
    dispatch: int
    attempts: int
    has_request: bool


def needed_of_jobs(connection: Connection, job_ids: Sequence[JobId]) -> list[NeededJob]:
    """Those of these jobs that are known and can be read, without their payloads."""
    found = connection.execute(_needed_of_jobs(is_postgres(connection)), {"ids": list(job_ids)})
    return [needed for row in found if (needed := _needed_job(row)) is not None]


def _needed_job(row: AnyRow) -> NeededJob | None:
    if not (isinstance(row.dispatch, int) and isinstance(row.attempts, int)):
        return None
    try:
        return NeededJob(placeable_of(row), row.dispatch, row.attempts, row.requested is not None)
    except ValueError:
        return None


def due_retry_ids(connection: Connection, now_ms: int, limit: int) -> list[JobId]:
    """Jobs that are due for their next attempt by ``now_ms``, the longest due first, whoever serves them."""
    return list(connection.execute(_DUE_RETRY_IDS, {"now_ms": now_ms, "limit": limit}).scalars())


def due_retries(connection: Connection, job_ids: Sequence[JobId]) -> list[DueRetry | UnreadableRow]:
    """Those of these jobs that wait for their next attempt, without their payloads."""
    found = connection.execute(_due_retries(is_postgres(connection)), {"ids": list(job_ids)})
    return [_due_retry(row) for row in found]


def _due_retry(row: AnyRow) -> DueRetry | UnreadableRow:
    # In SQLite a column of numbers may hold a text.
    if not isinstance(row.needs, str) or not isinstance(row.needed_vram, int) or row.needed_vram < 0:
        return UnreadableRow(JobId(row.job_id), row.dispatch, "what it needs of a pool cannot be read")
    kept = KeptModel(row.model, row.model_version, row.needs, row.needed_vram)
    return DueRetry(JobId(row.job_id), row.dispatch, row.due_at, kept)


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
        replace_decisions(
            connection,
            [Decided(item.job_id, item.from_dispatch + 1, None, item.decision) for item in parked.values()],
        )
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


class _Kind(Enum):
    """Which index finds waiting jobs, and in which order.

    Values:
      PLAIN: Those without needs.
      NEEDING: Those with needs, among them no size.
      SIZED: Those with a size among their needs.
    """

    PLAIN = auto()
    NEEDING = auto()
    SIZED = auto()

    @classmethod
    def of(cls, kept: KeptModel) -> _Kind:
        if not kept.needs:
            return cls.PLAIN
        return cls.SIZED if kept.vram else cls.NEEDING


def _columns_of(kept: KeptModel) -> dict[str, str | int]:
    return dict(zip(_KEPT, kept, strict=True))


_KEPT = ("model", "model_version", "needs", "needed_vram")
_NONE = literal_column("0", BigInteger)


def _is_kept(kind: _Kind, given: Callable[[str], Any]) -> ColumnElement[bool]:
    """Whether a row is of a kept model and waits.

    Args:
      given: Returns what it is compared with, by the name of the column.
    """
    of_model = (IS_PLACEABLE, *(jobs.c[name] == given(name) for name in ("model", "model_version")))
    if kind is _Kind.PLAIN:
        return and_(*of_model, HAS_NO_NEEDS)
    needing = (*of_model, HAS_NEEDS, jobs.c.needs == given("needs"))
    if kind is _Kind.NEEDING:
        return and_(*needing, jobs.c.needed_vram == _NONE)
    return and_(*needing, jobs.c.needed_vram > _NONE, jobs.c.needed_vram <= given("needed_vram"))


@cache
def _waiting_ids(kind: _Kind) -> Select[Any]:
    return (
        select(jobs.c.job_id)
        .where(_is_kept(kind, bindparam), jobs.c.due_at <= bindparam("now_ms"))
        .order_by(jobs.c.due_at, jobs.c.job_id)
        .limit(bindparam("limit"))
    )


_WITHOUT_PAYLOAD = tuple(
    literal_column("''", Text).label("payload") if each.name == "payload" else each
    for each in PLACEABLE_COLUMNS
)


@cache
def _needed_of_jobs(postgres: bool) -> Select[Any]:
    columns = (*_WITHOUT_PAYLOAD, jobs.c.dispatch, jobs.c.attempts, jobs.c.requested)
    return select(*columns).where(is_among(postgres, jobs.c.job_id))


_DUE_RETRY_IDS = (
    select(jobs.c.job_id)
    .where(IS_RETRYING, jobs.c.due_at <= bindparam("now_ms"), jobs.c.requested.is_(None))
    .order_by(jobs.c.due_at, jobs.c.job_id)
    .limit(bindparam("limit"))
)


@cache
def _waiting(postgres: bool) -> Select[Any]:
    names = ("dispatch", "attempts", "pool", "due_at", "moved_from", "moved_to")
    query = select(*PLACEABLE_COLUMNS, *(jobs.c[name] for name in names))
    query = query.where(IS_PLACEABLE, is_among(postgres, jobs.c.job_id))
    return query.order_by(jobs.c.due_at, jobs.c.job_id)


@cache
def _due_retries(postgres: bool) -> Select[Any]:
    query = select(jobs.c.job_id, jobs.c.dispatch, jobs.c.due_at, *(jobs.c[name] for name in _KEPT))
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
def _next_waiting(postgres: bool, kind: _Kind) -> Select[Any]:
    given = given_rows(postgres, jobs, _KEPT)
    # One look into the index for each model: an aggregate over them would read every waiting job.
    first = (
        select(jobs.c.due_at)
        .where(
            _is_kept(kind, given.c.__getitem__),
            # In SQLite a column of numbers may hold a text, which is above all numbers.
            jobs.c.due_at < literal_column(str(MAX_TIME_MS), BigInteger),
        )
        .order_by(jobs.c.due_at)
        .limit(1)
        .scalar_subquery()
    )
    return select(*(given.c[name] for name in _KEPT), first.label("due_at"))


@cache
def _with_needs(postgres: bool) -> Select[Any]:
    given = given_rows(postgres, jobs, ("model",))
    one = select(jobs.c.job_id).where(IS_PLACEABLE, HAS_NEEDS, jobs.c.model == given.c.model).limit(1)
    return select(given.c.model, one.scalar_subquery().label("job_id"))
