"""Requests to end a job: set durably on its row first, so that nobody who dies in between forgets them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, select

from tether.ids import JobId, PoolName, TenantId
from tether.jobs import JobState
from tether.store.accounting import account_for
from tether.store.bulk import delete_of_jobs, is_among, is_postgres, lock_jobs, update_rows
from tether.store.holds import CAPACITY, QUOTA, Moves, free_holds, move_counters
from tether.store.rows import AnyRow, JobRow, optional_state, result_to_text
from tether.store.schema import HAS_DEADLINE, HAS_REQUEST, IS_OPEN, dispatches, jobs
from tether.streams.token_log import StreamedTokens


class Request(NamedTuple):
    """Somebody wants a job to end.

    Attributes:
      tenant_id: Whose job it must be; None where the caller may end any.
      end: ``cancelled`` or ``expired``.
      now_ms: Milliseconds since the epoch.
    """

    tenant_id: TenantId | None
    job_id: JobId
    end: str
    now_ms: int


class Conclusion(NamedTuple):
    """Redis does not have the job, or does not run it: it may end as it was asked to.

    Attributes:
      dispatch: The hand-over that Redis was asked about.
      state: ``cancelled`` or ``expired``.
      now_ms: Milliseconds since the epoch.
      made: What attempts had streamed until then.
    """

    job_id: JobId
    dispatch: int
    state: str
    now_ms: int
    made: StreamedTokens = StreamedTokens()


class LateCancellation(NamedTuple):
    """A cancellation that came when the job had succeeded in Redis.

    Attributes:
      dispatch: The hand-over that Redis was asked about.
    """

    job_id: JobId
    dispatch: int


@dataclass(frozen=True)
class RequestedRow:
    """A job and the end that was asked for: the first request counts.

    Attributes:
      requested: None where it was final before anybody asked.
    """

    job_id: JobId
    tenant_id: TenantId
    state: JobState
    dispatch: int
    pool: PoolName | None
    requested: JobState | None


_COLUMNS = (
    jobs.c.job_id,
    jobs.c.tenant_id,
    jobs.c.state,
    jobs.c.dispatch,
    jobs.c.pool,
    jobs.c.requested,
)


def request(connection: Connection, wanted: list[Request]) -> list[RequestedRow | None]:
    """Note that these jobs are to end; the state does not change yet. A final row is left as it is, and a
    request that was made before stays.

    Returns:
      For each the row; None where the job is not known, or another tenant's.
    """
    rows = lock_jobs(connection, [item[1] for item in wanted])
    ends: dict[JobId, Request] = {}
    for item in map(Request._make, wanted):
        row = rows.get(item.job_id)
        if row is None or not _may_see(row, item.tenant_id):
            continue
        if row.requested is None and not row.state.is_final:
            ends.setdefault(item.job_id, item)
    changes = [
        {
            "job_id": job_id,
            "requested": JobState(ends[job_id].end).value,
            "requested_at": ends[job_id].now_ms,
            "updated_at": ends[job_id].now_ms,
        }
        for job_id in sorted(ends)
    ]
    update_rows(connection, jobs, "job_id", changes)

    def answer(item: Request) -> RequestedRow | None:
        row = rows.get(item.job_id)
        if row is None or not _may_see(row, item.tenant_id):
            return None
        end = ends.get(item.job_id)
        requested = row.requested if end is None else JobState(end.end)
        return RequestedRow(row.job_id, row.tenant_id, row.state, row.dispatch, row.pool, requested)

    return [answer(Request._make(item)) for item in wanted]


def conclude(connection: Connection, conclusions: list[Conclusion]) -> list[bool]:
    """Make rows final whose end was asked for, without an attempt; their holds and outbox rows go.

    Returns:
      For each whether this made it final: it was not before, was at this dispatch, and had a request.
    """
    rows = lock_jobs(connection, [item[0] for item in conclusions])
    ends: dict[JobId, Conclusion] = {}
    answers: list[bool] = []
    for item in map(Conclusion._make, conclusions):
        row = rows.get(item.job_id)
        may_end = (
            row is not None
            and item.job_id not in ends
            and not row.state.is_final
            and row.dispatch == item.dispatch
            and row.requested is not None
        )
        answers.append(may_end)
        if may_end:
            ends[item.job_id] = item
    if ends:
        _end(connection, ends, rows)
    return answers


def forget_late(connection: Connection, items: list[LateCancellation]) -> list[bool]:
    """Take requests off rows whose jobs had succeeded by then: should Redis lose that end, it is made again.

    Returns:
      For each whether there was such a request, at this dispatch.
    """
    rows = lock_jobs(connection, [item[0] for item in items])
    late: dict[JobId, bool] = {}
    for item in map(LateCancellation._make, items):
        row = rows.get(item.job_id)
        late[item.job_id] = (
            row is not None
            and not row.state.is_final
            and row.dispatch == item.dispatch
            and row.requested is JobState.CANCELLED
        )
    changes = [
        {"job_id": job_id, "requested": None, "requested_at": None}
        for job_id, is_late in sorted(late.items())
        if is_late
    ]
    update_rows(connection, jobs, "job_id", changes)
    return [late[item[0]] for item in items]


def overdue(connection: Connection, now_ms: int, limit: int, offset: int = 0) -> list[JobId]:
    """Jobs that are not final at or past their deadline, and whose end nobody has asked for yet, the longest
    past first, but the first ``offset`` of them."""
    query = select(jobs.c.job_id).where(IS_OPEN, HAS_DEADLINE, jobs.c.deadline <= now_ms)
    query = query.where(jobs.c.requested.is_(None)).order_by(jobs.c.deadline, jobs.c.job_id)
    return list(connection.execute(query.limit(limit).offset(offset)).scalars())


def requested(connection: Connection, older_than_ms: int, limit: int, offset: int = 0) -> list[JobId]:
    """Jobs that are not final though their end was asked for before ``older_than_ms``, the oldest first, but
    the first ``offset`` of them."""
    query = select(jobs.c.job_id).where(IS_OPEN, HAS_REQUEST, jobs.c.requested_at < older_than_ms)
    query = query.order_by(jobs.c.requested_at, jobs.c.job_id)
    return list(connection.execute(query.limit(limit).offset(offset)).scalars())


def requested_rows(connection: Connection, job_ids: Sequence[JobId]) -> list[RequestedRow]:
    """What there is of these jobs.

    Raises:
      ValueError: One has a state that this version does not know.
    """
    return rows_where(connection, job_ids)


def rows_where(
    connection: Connection, job_ids: Sequence[JobId], *conditions: ColumnElement[bool]
) -> list[RequestedRow]:
    """Those of these jobs for which all of it is true."""
    query = select(*_COLUMNS).where(is_among(is_postgres(connection), jobs.c.job_id), *conditions)
    return [_requested_row(row) for row in connection.execute(query, {"ids": list(job_ids)})]


def _end(connection: Connection, ends: dict[JobId, Conclusion], rows: Mapping[JobId, JobRow]) -> None:
    changes = [
        {
            "job_id": job_id,
            "state": JobState(ends[job_id].state).value,
            "updated_at": ends[job_id].now_ms,
            "finished_at": ends[job_id].now_ms,
            "result": result_to_text(made.pieces, made.run) if (made := ends[job_id].made).pieces else None,
            "output_tokens": len(made.pieces),
        }
        for job_id in sorted(ends)
    ]
    update_rows(connection, jobs, "job_id", changes)
    delete_of_jobs(connection, dispatches, ends)
    account_for(connection, [_ended(rows[job_id], ends[job_id]) for job_id in sorted(ends)])
    moves: Moves = Counter()
    free_holds(connection, list(ends), (CAPACITY, QUOTA), moves)
    move_counters(connection, moves)


def _ended(row: JobRow, end: Conclusion) -> JobRow:
    return replace(
        row,
        state=JobState(end.state),
        output_tokens=len(end.made.pieces),
        finished_at=end.now_ms,
    )


def _may_see(row: JobRow, tenant_id: TenantId | None) -> bool:
    return tenant_id is None or tenant_id == row.tenant_id


def _requested_row(row: AnyRow) -> RequestedRow:
    values = dict(row._mapping)
    values |= {"state": JobState(row.state), "requested": optional_state(row.requested)}
    return RequestedRow(**values)
