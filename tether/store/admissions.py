"""Admission: a job, its holds and its first hand-over come to be in one transaction, or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Insert,
    Integer,
    Select,
    Text,
    insert,
    literal_column,
    select,
    union_all,
)

from tether.jobs import JobState
from tether.store.bulk import delete_of_jobs, insert_new_rows, is_among, is_postgres, rows_with_keys
from tether.store.holds import CAPACITY, QUOTA, Moves, move_counters
from tether.store.rows import AnyRow, compact_json
from tether.store.schema import dispatches, holds, jobs, tenants

SUBMITTER_GRACE_MS = 1_000
"""How long whoever submits a job has for handing it over, before the outbox relay does."""

_Key = tuple[str, str, str]
_KEY = ("tenant_id", "correlation_id", "retry_token")
_KNOWN_COLUMNS = (*_KEY, "job_id", "state", "dispatch", "pool", "digest")


@dataclass(frozen=True)
class NewJob:
    """A job to admit. Times are milliseconds since the epoch.

    Attributes:
      job_id: A fresh UUIDv7.
      correlation_id: With tenant and retry token the key under which it is known.
      digest: Of what was asked for: the same key with another digest is a conflict.
      labels: The client's own marks.
      body: The JSON that a worker gets.
      pool: Where to place it; None where no pool can serve it yet.
      weight: The tenant's, as the pool's fairness counts it.
      not_before: 0 is at once.
      deadline: 0 is never.
      cost: Estimated input tokens.
    """

    job_id: str
    tenant_id: str
    correlation_id: str
    retry_token: str
    retry_of: str | None
    digest: str
    model: str
    priority: str
    labels: Mapping[str, str]
    body: str
    pool: str | None
    weight: float
    not_before: int
    deadline: int
    cost: int
    now_ms: int


class AdmissionKind(StrEnum):
    """What admission made of a new job."""

    ACCEPTED = "accepted"
    KNOWN = "known"
    CONFLICT = "conflict"
    OVER_QUOTA = "over_quota"


@dataclass(frozen=True)
class Admission:
    """The answer to one :class:`NewJob`.

    Attributes:
      kind: ``accepted``: it is a job now. ``known``: the key had this job already. ``conflict``: the key has
        a job that asked for something else. ``over_quota``: the tenant has as many open jobs as it may have.
      job_id: The job that has the key; where over quota, the one that was refused.
      state: Of the job that has the key; None where over quota.
      dispatch: Its newest hand-over; 0 is none.
      pool: Where that goes.
      depth: Open jobs with a hold on the pool, this one counted; over quota, the tenant's open jobs;
        otherwise 0.
    """

    kind: AdmissionKind
    job_id: str
    state: JobState | None
    dispatch: int = 0
    pool: str | None = None
    depth: int = 0


def admit(connection: Connection, new_jobs: list[NewJob]) -> list[Admission]:
    """Make jobs of these, each for itself: one that is refused does not touch the others.

    A job with a pool is ``accepted`` with dispatch 1, an outbox row and a hold on the pool's capacity; one
    without is ``parked``. Either holds one of its tenant's quota. Of two with one key, the first counts.
    """
    firsts: dict[_Key, NewJob] = {}
    for job in new_jobs:
        firsts.setdefault(_key(job), job)
    earlier = _jobs_by_key(connection, list(firsts))
    # In the order of their keys: two transactions with the same keys wait for each other one way only.
    rows = [_columns(firsts[key]) for key in sorted(firsts) if key not in earlier]
    fresh = insert_new_rows(connection, jobs, "job_id", _KEY, rows)
    late = [key for key, job in firsts.items() if key not in earlier and job.job_id not in fresh]
    earlier |= _jobs_by_key(connection, late)
    claims = _claim(connection, [job for key, job in firsts.items() if key not in earlier])

    answers: list[Admission] = []
    answered: set[_Key] = set()
    for job in new_jobs:
        key = _key(job)
        first = firsts[key]
        if key in earlier:
            answers.append(_known_row(earlier[key], job))
        elif first.job_id in claims.refused:
            held = claims.refused[first.job_id]
            answers.append(Admission(AdmissionKind.OVER_QUOTA, job.job_id, None, depth=held))
        else:
            kind, depth = AdmissionKind.ACCEPTED, claims.depths.get(first.job_id, 0)
            if key in answered:
                kind, depth = _known_or_conflict(first.digest, job), 0
            state, dispatch = _beginning(first)
            answers.append(Admission(kind, first.job_id, state, dispatch, first.pool, depth))
        answered.add(key)
    return answers


@dataclass
class _Claims:
    """What the counters said: who is over quota, with what its tenant holds, and the others' depths."""

    refused: dict[str, int] = field(default_factory=dict)
    depths: dict[str, int] = field(default_factory=dict)


def _key(job: NewJob) -> _Key:
    return job.tenant_id, job.correlation_id, job.retry_token


def _beginning(job: NewJob) -> tuple[JobState, int]:
    return (JobState.PARKED, 0) if job.pool is None else (JobState.ACCEPTED, 1)


def _known_or_conflict(digest: str, job: NewJob) -> AdmissionKind:
    return AdmissionKind.KNOWN if digest == job.digest else AdmissionKind.CONFLICT


def _known_row(row: AnyRow, job: NewJob) -> Admission:
    kind = _known_or_conflict(row.digest, job)
    return Admission(kind, row.job_id, JobState(row.state), row.dispatch, row.pool)


def _columns(job: NewJob) -> dict[str, object]:
    state, dispatch = _beginning(job)
    return {
        "job_id": job.job_id,
        "tenant_id": job.tenant_id,
        "correlation_id": job.correlation_id,
        "retry_token": job.retry_token,
        "retry_of": job.retry_of,
        "digest": job.digest,
        "model": job.model,
        "priority": str(job.priority),
        "labels": compact_json(dict(job.labels)),
        "body": job.body,
        "state": state.value,
        "dispatch": dispatch,
        "pool": job.pool,
        "weight": job.weight,
        "not_before": job.not_before,
        "deadline": job.deadline,
        "cost": job.cost,
        "created_at": job.now_ms,
        "updated_at": job.now_ms,
        "due_at": _due_at(job),
    }


def _due_at(job: NewJob) -> int:
    """When the relay hands it over, or a pool is chosen for it. Only a job that may run now is handed over
    by its submitter."""
    if job.not_before > job.now_ms:
        return job.not_before
    return job.now_ms + (SUBMITTER_GRACE_MS if job.pool is not None else 0)


def _jobs_by_key(connection: Connection, keys: list[_Key]) -> dict[_Key, AnyRow]:
    rows = rows_with_keys(connection, jobs, _KNOWN_COLUMNS, _KEY, keys)
    return {(row.tenant_id, row.correlation_id, row.retry_token): row for row in rows}


def _claim(connection: Connection, accepted: list[NewJob]) -> _Claims:
    if not accepted:
        return _Claims()
    ids = [job.job_id for job in accepted]
    _insert_holds(connection, ids)
    claims = _Claims()
    moves = _moves(accepted)
    quotas = _quotas(connection, {job.tenant_id for job in accepted})
    if quotas:
        held = move_counters(connection, dict.fromkeys(moves, 0))
        claims.refused = _over_quota(accepted, quotas, held)
        if claims.refused:
            for table in (dispatches, holds, jobs):
                delete_of_jobs(connection, table, claims.refused)
            accepted = [job for job in accepted if job.job_id not in claims.refused]
            moves = _moves(accepted)
    after = move_counters(connection, moves)
    for job in reversed(accepted):
        if job.pool is not None:
            claims.depths[job.job_id] = after[CAPACITY, job.pool]
            after[CAPACITY, job.pool] -= 1
    return claims


def _insert_holds(connection: Connection, job_ids: list[str]) -> None:
    for statement in _hold_statements(is_postgres(connection)):
        connection.execute(statement, {"ids": job_ids})


@cache
def _hold_statements(postgres: bool) -> tuple[Insert, Insert]:
    """Write the outbox rows and the holds of jobs that were just inserted, from their rows."""
    are_these = is_among(postgres, jobs.c.job_id)
    have_pool = jobs.c.pool.is_not(None)
    place = (jobs.c.job_id, jobs.c.dispatch, jobs.c.pool, jobs.c.due_at, jobs.c.created_at)

    def hold(kind: str, name: ColumnElement[Any]) -> Select[Any]:
        the_kind = literal_column(f"'{kind}'", Text)
        one = literal_column("1", Integer)
        return select(jobs.c.job_id, the_kind, name, jobs.c.dispatch, one, jobs.c.created_at)

    quota = hold(QUOTA, jobs.c.tenant_id).where(are_these)
    capacity = hold(CAPACITY, jobs.c.pool).where(are_these, have_pool)
    outbox = select(*place).where(are_these, have_pool)
    return (
        insert(dispatches).from_select([column.name for column in place], outbox),
        insert(holds).from_select([column.name for column in holds.c], union_all(quota, capacity)),
    )


def _moves(accepted: list[NewJob]) -> Moves:
    moves: Moves = Counter((QUOTA, job.tenant_id) for job in accepted)
    moves.update((CAPACITY, job.pool) for job in accepted if job.pool is not None)
    return moves


def _quotas(connection: Connection, tenant_ids: set[str]) -> dict[str, int]:
    query = _tenants_with_quota(is_postgres(connection))
    found = connection.execute(query, {"ids": sorted(tenant_ids)})
    return {row.tenant_id: row.quota for row in found}


@cache
def _tenants_with_quota(postgres: bool) -> Select[Any]:
    are_these = is_among(postgres, tenants.c.tenant_id)
    return select(tenants.c.tenant_id, tenants.c.quota).where(are_these, tenants.c.quota.is_not(None))


def _over_quota(
    accepted: list[NewJob], quotas: dict[str, int], held: dict[tuple[str, str], int]
) -> dict[str, int]:
    refused: dict[str, int] = {}
    for job in accepted:
        counter = (QUOTA, job.tenant_id)
        if job.tenant_id in quotas and held[counter] >= quotas[job.tenant_id]:
            refused[job.job_id] = held[counter]
        else:
            held[counter] += 1
    return refused
