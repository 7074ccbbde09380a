"""What clients and operators ask about jobs. All of it only reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from tether.jobs import EVERY_JOB, JobFilter, Piece, first_id_at
from tether.store.rows import ROW_COLUMNS, AnyRow, JobRow, compact_json, job_row
from tether.store.schema import attempts, dead_letters, jobs


@dataclass(frozen=True)
class StoredResult:
    """The tokens of an ended job, as far as they were made.

    Attributes:
      run: The stream's run that they are of.
      finish_reason: ``stop`` or ``length``; empty where the job did not succeed.
    """

    pieces: tuple[Piece, ...]
    run: int
    finish_reason: str


@dataclass(frozen=True)
class DeadLetter:
    """The record of a job that is not tried again by itself.

    Attributes:
      retry_token: Under which a new job made from it is submitted.
      history: Its attempts, in order, as columns of the table ``attempts``.
      retried_as: The job that was made from it, if any.
    """

    job_id: str
    tenant_id: str
    reason: str
    retryable: bool
    retry_token: str
    history: tuple[Mapping[str, Any], ...]
    created_at: int
    retried_as: str | None


def job(connection: Connection, job_id: str, tenant_id: str | None = None) -> JobRow | None:
    """One job; None where it is not known, or not of this tenant."""
    query = select(*ROW_COLUMNS).where(jobs.c.job_id == job_id)
    if tenant_id is not None:
        query = query.where(jobs.c.tenant_id == tenant_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else job_row(row)


def job_with_key(connection: Connection, key: tuple[str, str, str]) -> str | None:
    """The id of the job that has this key: tenant, correlation id and retry token."""
    tenant_id, correlation_id, retry_token = key
    found: str | None = connection.execute(
        select(jobs.c.job_id).where(
            jobs.c.tenant_id == tenant_id,
            jobs.c.correlation_id == correlation_id,
            jobs.c.retry_token == retry_token,
        )
    ).scalar()
    return found


def jobs_of(
    connection: Connection,
    tenant_id: str | None,
    job_filter: JobFilter = EVERY_JOB,
    after: str | None = None,
    limit: int = 50,
) -> list[JobRow]:
    """A page of a tenant's jobs, the newest first.

    Args:
      tenant_id: Whose; None for everybody's.
      job_filter: Which. A job's time is the one in its id.
      after: The last job id of the page before.
      limit: Most jobs to answer.
    """
    query = select(*ROW_COLUMNS).order_by(jobs.c.job_id.desc()).limit(limit)
    if tenant_id is not None:
        query = query.where(jobs.c.tenant_id == tenant_id)
    if job_filter.states:
        query = query.where(jobs.c.state.in_([state.value for state in job_filter.states]))
    if job_filter.model is not None:
        query = query.where(jobs.c.model == job_filter.model)
    if after is not None:
        query = query.where(jobs.c.job_id < after)
    if job_filter.created_after is not None:
        query = query.where(jobs.c.job_id >= first_id_at(job_filter.created_after))
    if job_filter.created_before is not None:
        query = query.where(jobs.c.job_id < first_id_at(job_filter.created_before))
    for key, value in job_filter.labels.items():
        # Labels are kept as JSON without white space, so a pair follows '{' or ','. Inside of a string, a
        # quotation mark has a backslash before it: there neither pair is found. Postgres's own JSON
        # operators would fail on a label with a NUL in it.
        find = func.instr if connection.dialect.name == "sqlite" else func.strpos
        pair = compact_json({key: value})[1:-1]
        query = query.where((find(jobs.c.labels, "{" + pair) > 0) | (find(jobs.c.labels, "," + pair) > 0))
    return [job_row(row) for row in connection.execute(query)]


def dead_letter(connection: Connection, job_id: str, tenant_id: str | None = None) -> DeadLetter | None:
    """The dead letter of one job; None where there is none, or not of this tenant."""
    query = select(dead_letters).where(dead_letters.c.job_id == job_id)
    if tenant_id is not None:
        query = query.where(dead_letters.c.tenant_id == tenant_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else _dead_letter(row)


def dead_letters_of(
    connection: Connection, tenant_id: str | None, after: str | None = None, limit: int = 50
) -> list[DeadLetter]:
    """A page of a tenant's dead letters, or of everybody's, the newest job first."""
    query = select(dead_letters).order_by(dead_letters.c.job_id.desc()).limit(limit)
    if tenant_id is not None:
        query = query.where(dead_letters.c.tenant_id == tenant_id)
    if after is not None:
        query = query.where(dead_letters.c.job_id < after)
    return [_dead_letter(row) for row in connection.execute(query)]


def attempts_of(connection: Connection, job_id: str) -> list[Mapping[str, Any]]:
    """A job's attempts in order, as columns of the table ``attempts``."""
    query = select(attempts).where(attempts.c.job_id == job_id)
    rows = connection.execute(query.order_by(attempts.c.dispatch, attempts.c.attempt, attempts.c.draw_id))
    return [dict(row._mapping) for row in rows]


def result_pieces(connection: Connection, job_id: str) -> StoredResult | None:
    """The tokens of an ended job; None where it has not ended or made none."""
    text = connection.execute(select(jobs.c.result).where(jobs.c.job_id == job_id)).scalar_one_or_none()
    if text is None:
        return None
    value = json.loads(text)
    pieces = tuple(map(Piece, value["ids"], value["texts"]))
    return StoredResult(pieces, value["run"], value["finish_reason"])


def _dead_letter(row: AnyRow) -> DeadLetter:
    return DeadLetter(**{**row._mapping, "history": tuple(json.loads(row.history))})
