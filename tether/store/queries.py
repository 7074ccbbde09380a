"""Queries of clients and operators about jobs. All are read-only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from tether.ids import JobId, TenantId
from tether.jobs import JobState, Piece
from tether.store.attempt_rows import MAX_ATTEMPTS_KEPT, newest_attempts
from tether.store.rows import ROW_COLUMNS, JobRow, readable_job_row, text_or_none
from tether.store.schema import jobs
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


def job(connection: Connection, job_id: JobId, tenant_id: TenantId | None = None) -> JobRow | None:
    """Return one job; None if it is unknown, or not of this tenant."""
    query = select(*ROW_COLUMNS).where(jobs.c.job_id == job_id)
    if tenant_id is not None:
        query = query.where(jobs.c.tenant_id == tenant_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else readable_job_row(row)


class KeyHolder(NamedTuple):
    """The job that an idempotency key belongs to; ``digest`` is that of its request, ``retry_of`` the dead
    job that it retries."""

    job_id: JobId
    state: JobState
    digest: str
    retry_of: JobId | None = None
    degraded_from: str | None = None


def job_with_key(connection: Connection, key: tuple[TenantId, str, str]) -> KeyHolder | None:
    """The job that has this key: tenant, correlation id and retry token."""
    tenant_id, correlation_id, retry_token = key
    row = connection.execute(
        select(jobs.c.job_id, jobs.c.state, jobs.c.digest, jobs.c.retry_of, jobs.c.degraded_from).where(
            jobs.c.tenant_id == tenant_id,
            jobs.c.correlation_id == correlation_id,
            jobs.c.retry_token == retry_token,
        )
    ).one_or_none()
    if row is None:
        return None
    lesser = text_or_none(row.degraded_from)
    return KeyHolder(JobId(row.job_id), JobState(row.state), row.digest, row.retry_of, lesser)


def attempts_of(connection: Connection, job_id: JobId) -> Sequence[Mapping[str, Any]]:
    """A job's newest attempts in order, as columns of the table ``attempts``. Earlier ones count as dropped
    with the first of them."""
    return newest_attempts(connection, job_id, MAX_ATTEMPTS_KEPT)


def result_pieces(connection: Connection, job_id: JobId) -> StoredResult | None:
    """The tokens of an ended job; None where it has not ended or made none."""
    text = connection.execute(select(jobs.c.result).where(jobs.c.job_id == job_id)).scalar_one_or_none()
    if text is None:
        return None
    value = json.loads(text)
    return StoredResult(pieces_from_json(value), value["run"], value["finish_reason"])
