"""Lists of jobs. A call looks at a bounded number of rows; the next one goes on behind them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, Table, func, select, union_all

from tether.ids import JobId, TenantId
from tether.job_filters import EVERY_JOB, JobFilter
from tether.jobs import first_id_at
from tether.store.bad_rows import read_each
from tether.store.bulk import is_among, is_postgres
from tether.store.job_labels import label_digest, unindexed_up_to
from tether.store.rows import ROW_COLUMNS, JobRow, compact_json, readable_job_row
from tether.store.schema import job_labels, jobs

MAX_SCANNED = 2_000
"""Rows that one call looks at."""

_ROWS_AT_ONCE = 200


class JobRows(NamedTuple):
    """Some of a tenant's jobs.

    Attributes:
      rows: Newest first.
      after: The job id behind which the list goes on; None at its end. A list may go on behind no rows.
      scanned: Rows that were looked at.
    """

    rows: list[JobRow]
    after: JobId | None
    scanned: int


class _Range(NamedTuple):
    """Where ids are looked for: one tenant's or all, between two ids, by an index of what is filtered.

    Attributes:
      below: Only ids below this one.
      above, up_to: Only ids above this one, and up to this one.
    """

    tenant_id: TenantId | None
    job_filter: JobFilter
    below: JobId | None
    above: JobId | None = None
    up_to: JobId | None = None


def scan_jobs(
    connection: Connection,
    tenant_id: TenantId | None,
    job_filter: JobFilter = EVERY_JOB,
    after: JobId | None = None,
    limit: int = 50,
    max_scanned: int = MAX_SCANNED,
) -> JobRows:
    """Return a part of a tenant's jobs, newest first.

    Args:
      tenant_id: The tenant; None for all.
      job_filter: The filter. A job's time is the one in its id.
      after: Where the part before ended.
      limit: Maximum number of jobs to return.
      max_scanned: Maximum number of rows to look at.
    """
    # One index finds ids, in order. Only as many rows are read as are needed, some at a time.
    where = _Range(tenant_id, job_filter, after)
    unindexed = unindexed_up_to(connection) if _labels_of(where) else None
    filters = len(job_filter.labels) + bool(job_filter.states) + (job_filter.model is not None)
    # No index has pools.
    is_exact = (
        unindexed is None and job_filter.pool is None and filters <= (1 if tenant_id is not None else 0)
    )
    count = min(limit, max_scanned) if is_exact else max_scanned
    if unindexed is None:
        ids = _newest_ids(connection, where, count)
    else:
        ids = _newest_ids(connection, where._replace(above=unindexed), count)
        if len(ids) < count:
            unlabelled = replace(job_filter, labels={})
            older = where._replace(job_filter=unlabelled, up_to=unindexed)
            ids += _newest_ids(connection, older, count - len(ids))

    query = select(*ROW_COLUMNS).where(
        is_among(is_postgres(connection), jobs.c.job_id), *_conditions(connection, job_filter)
    )
    query = query.order_by(jobs.c.job_id.desc())

    def read(some: list[JobId]) -> list[JobRow]:
        return [readable_job_row(row) for row in connection.execute(query, {"ids": some})]

    rows: list[JobRow] = []
    for start in range(0, len(ids), _ROWS_AT_ONCE):
        some = ids[start : start + _ROWS_AT_ONCE]
        # A row that cannot be fetched is left out: who asks for that job alone gets the error.
        rows += read_each(read, some)[0]
        if len(rows) >= limit:
            last = rows[limit - 1].job_id
            is_end = len(ids) < count and last == ids[-1]
            return JobRows(rows[:limit], None if is_end else last, ids.index(last) + 1)
    return JobRows(rows, ids[-1] if len(ids) == count else None, len(ids))


def _newest_ids(connection: Connection, where: _Range, count: int) -> list[JobId]:
    """The newest ids, all from the index that passes over most jobs that are not asked for."""
    ways = _ways(where, count)
    best, oldest = ways[0], None
    for way in ways if len(ways) > 1 else ():
        last = connection.execute(way.offset(count - 1).limit(1)).scalar_one_or_none()
        if last is None:
            # It has fewer than that: it is read to its end.
            best = way
            break
        if oldest is None or last < oldest:
            best, oldest = way, last
    return list(connection.execute(best.limit(count)).scalars())


def _ways(where: _Range, count: int) -> list[Select[Any]]:
    """Return the newest ids by each index of what is filtered: each label, the state, the model.

    Args:
      count: As many are asked for.
    """
    job_filter = where.job_filter
    labelled, newest = _ids(job_labels, where), _ids(jobs, where)
    ways = [labelled.where(job_labels.c.label == label) for label in _labels_of(where)]
    if job_filter.states:
        # The index has the ids of each state in order: that of several is merged from as many of each.
        each = [newest.where(jobs.c.state == state.value) for state in job_filter.states]
        some = union_all(*(select(part.limit(count).subquery()) for part in each)).subquery()
        merged = select(some.c.job_id).order_by(some.c.job_id.desc())
        ways.append(each[0] if len(each) == 1 else merged)
    if job_filter.model is not None:
        ways.append(newest.where(jobs.c.model == job_filter.model))
    return ways or [newest]


def _labels_of(where: _Range) -> list[int]:
    """The labels by which jobs are found: the index has those of each tenant."""
    if where.tenant_id is None:
        return []
    return [label_digest(name, value) for name, value in where.job_filter.labels.items()]


def _ids(table: Table, where: _Range) -> Select[Any]:
    job_id, job_filter = table.c.job_id, where.job_filter
    scope: list[ColumnElement[bool]] = []
    if where.tenant_id is not None:
        scope.append(table.c.tenant_id == where.tenant_id)
    if where.below is not None:
        scope.append(job_id < where.below)
    if where.above is not None:
        scope.append(job_id > where.above)
    if where.up_to is not None:
        scope.append(job_id <= where.up_to)
    if job_filter.created_after is not None:
        scope.append(job_id >= first_id_at(job_filter.created_after))
    if job_filter.created_before is not None:
        scope.append(job_id < first_id_at(job_filter.created_before))
    return select(job_id).where(*scope).order_by(job_id.desc())


def _conditions(connection: Connection, job_filter: JobFilter) -> list[ColumnElement[bool]]:
    """What a row must be: an index has found it by one of its filters only."""
    conditions = _label_conditions(connection, job_filter)
    if job_filter.states:
        conditions.append(jobs.c.state.in_(job_filter.states))
    if job_filter.model is not None:
        conditions.append(jobs.c.model == job_filter.model)
    if job_filter.pool is not None:
        conditions.append(jobs.c.pool == job_filter.pool)
    return conditions


def _label_conditions(connection: Connection, job_filter: JobFilter) -> list[ColumnElement[bool]]:
    # Labels are kept as JSON without white space, so a pair follows '{' or ','. Inside of a string, a
    # quotation mark has a backslash before it: there neither pair is found. Postgres's own JSON
    # operators would fail on a label with a NUL in it.
    find = func.strpos if is_postgres(connection) else func.instr
    pairs = [compact_json({key: value})[1:-1] for key, value in job_filter.labels.items()]
    return [(find(jobs.c.labels, "{" + pair) > 0) | (find(jobs.c.labels, "," + pair) > 0) for pair in pairs]
