"""Queries of clients and operators about jobs. All are read-only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from tether.ids import JobId, TenantId
from tether.jobs import JobState, Piece
from tether.store.bad_rows import read_each
from tether.store.rows import ROW_COLUMNS, AnyRow, JobRow, readable_job_row, value_from_text
from tether.store.schema import attempts, dead_letters, jobs
from tether.streams.pieces import pieces_from_json


@dataclass(frozen=True)
class StoredResult:
    """The generated tokens of an ended job.

    Attributes:
      run: Their stream's run.
      finish_reason: ``stop`` or ``length``; empty if the job did not succeed.
    """

    pieces: tuple[Piece, ...]
    run: int
    finish_reason: str


@dataclass(frozen=True)
class DeadLetter:
    """The record of a job that is not retried automatically.

    Attributes:
      retry_token: The retry token of a new job that retries it.
      history: Its attempts, in order, as columns of the table ``attempts``.
      retried_as: The job that retries it, if any.
    """

    job_id: JobId
    tenant_id: TenantId
    reason: str
    retryable: bool
    retry_token: str
    history: tuple[Mapping[str, Any], ...]
    created_at: int
    retried_as: JobId | None


def job(connection: Connection, job_id: JobId, tenant_id: TenantId | None = None) -> JobRow | None:
    """Return one job; None if it is unknown, or not of this tenant."""
    query = select(*ROW_COLUMNS).where(jobs.c.job_id == job_id)
    if tenant_id is not None:
        query = query.where(jobs.c.tenant_id == tenant_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else readable_job_row(row)


class KeyHolder(NamedTuple):
    """The job that an idempotency key belongs to; ``digest`` is that of its request."""

    job_id: JobId
    state: JobState
    digest: str


def job_with_key(connection: Connection, key: tuple[TenantId, str, str]) -> KeyHolder | None:
    """The job that has this key: tenant, correlation id and retry token."""
    tenant_id, correlation_id, retry_token = key
    row = connection.execute(
        select(jobs.c.job_id, jobs.c.state, jobs.c.digest).where(
            jobs.c.tenant_id == tenant_id,
            jobs.c.correlation_id == correlation_id,
            jobs.c.retry_token == retry_token,
        )
    ).one_or_none()
    return None if row is None else KeyHolder(JobId(row.job_id), JobState(row.state), row.digest)


def dead_letter(
    connection: Connection, job_id: JobId, tenant_id: TenantId | None = None
) -> DeadLetter | None:
    """Return the dead letter of one job; None if there is none, or not of this tenant."""
    query = select(dead_letters).where(dead_letters.c.job_id == job_id)
    if tenant_id is not None:
        query = query.where(dead_letters.c.tenant_id == tenant_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else _dead_letter(row)


def dead_letters_of(
    connection: Connection, tenant_id: TenantId | None, after: JobId | None = None, limit: int = 50
) -> list[DeadLetter]:
    """Return a page of a tenant's dead letters, or of all tenants', newest job first. One that cannot be
    fetched is left out."""
    query = select(dead_letters.c.job_id).order_by(dead_letters.c.job_id.desc()).limit(limit)
    if tenant_id is not None:
        query = query.where(dead_letters.c.tenant_id == tenant_id)
    if after is not None:
        query = query.where(dead_letters.c.job_id < after)

    def read(some: list[JobId]) -> list[DeadLetter]:
        rows = select(dead_letters).where(dead_letters.c.job_id.in_(some))
        return [_dead_letter(row) for row in connection.execute(rows.order_by(dead_letters.c.job_id.desc()))]

    return read_each(read, list(connection.execute(query).scalars()))[0]


def attempts_of(connection: Connection, job_id: JobId) -> list[Mapping[str, Any]]:
    """A job's attempts in order, as columns of the table ``attempts``."""
    query = select(attempts).where(attempts.c.job_id == job_id)
    rows = connection.execute(query.order_by(attempts.c.dispatch, attempts.c.attempt, attempts.c.draw_id))
    return [dict(row._mapping) for row in rows]


def result_pieces(connection: Connection, job_id: JobId) -> StoredResult | None:
    """The tokens of an ended job; None where it has not ended or made none."""
    text = connection.execute(select(jobs.c.result).where(jobs.c.job_id == job_id)).scalar_one_or_none()
    if text is None:
        return None
    value = json.loads(text)
    return StoredResult(pieces_from_json(value), value["run"], value["finish_reason"])


def _dead_letter(row: AnyRow) -> DeadLetter:
    return DeadLetter(**{**row._mapping, "history": _history(row.history)})


def _history(text: str) -> tuple[Mapping[str, Any], ...]:
    # What cannot be read of one letter must not hide the others.
    try:
        history = value_from_text(text)
    except ValueError:
        return ()
    return tuple(each for each in history if isinstance(each, dict)) if isinstance(history, list) else ()
