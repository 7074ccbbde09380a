"""Admission: a job, its holds and its first dispatch are created in one transaction, or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
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

from tether.dead_letters import LetterState
from tether.envelopes import Placeable
from tether.ids import JobId, PoolName, TenantId
from tether.jobs import JobState
from tether.spending import UNLIMITED, Overspent, SpendingQuotas
from tether.store.bulk import (
    delete_of_jobs,
    insert_new_rows,
    is_among,
    is_postgres,
    rows_with_keys,
    update_rows,
)
from tether.store.capacity import NO_BOUND, Claim, has_room, share_name
from tether.store.decisions import Decided, Decision, insert_decisions, replace_decisions
from tether.store.holds import CAPACITY, QUOTA, SHARE, Moves, free_holds, move_counters, note_capacity
from tether.store.job_labels import LabelKey, delete_labels, insert_labels, label_keys
from tether.store.letter_changes import close_as_retried, locked_letters
from tether.store.outbox import OUTBOX_COLUMNS, outbox_values
from tether.store.placeables import placeable_columns
from tether.store.rows import AnyRow, compact_json, text_or_none
from tether.store.schema import decisions, dispatches, holds, jobs, tenants
from tether.store.spending import WantedSpending, free_spending, hold_spending

SUBMITTER_GRACE_MS = 1_000
"""How long the submitter of a job has to place it, before the outbox relay does."""

_Key = tuple[TenantId, str, str]
_KEY = ("tenant_id", "correlation_id", "retry_token")
_KNOWN_COLUMNS = (*_KEY, "job_id", "state", "dispatch", "pool", "digest", "retry_of", "degraded_from")


@dataclass(frozen=True)
class NewJob:
    """A job to admit.

    Attributes:
      job: Its envelope and payload, with a new id.
      correlation_id: With tenant and retry token its idempotency key.
      digest: Of the request: the same key with a different digest is a conflict.
      retry_of: The dead job that it retries; None if it retries none.
      labels: The client's labels.
      pool: Where to place it; None if no pool can serve it yet.
      bound: How many jobs the pool takes.
      others: Where else it may go if that has no room, the best first. It is not tried here.
      now_ms: Milliseconds since the epoch.
      decision: Why it is to be placed there, to be kept.
      quotas: What its tenant may spend in a day and a month.
      degraded_from: See :class:`~tether.statuses.JobRecord`.
      retention_ms: How long it is kept once it has ended, at most; None is as long as any.
    """

    job: Placeable
    correlation_id: str
    retry_token: str
    retry_of: JobId | None
    digest: str
    labels: Mapping[str, str]
    pool: PoolName | None
    now_ms: int
    decision: Decision | None = None
    bound: int = NO_BOUND
    others: tuple[Claim, ...] = ()
    quotas: SpendingQuotas = UNLIMITED
    retention_ms: int | None = None
    degraded_from: str | None = None

    @property
    def job_id(self) -> JobId:
        return self.job.job_id

    @property
    def tenant_id(self) -> TenantId:
        return self.job.tenant_id

    @property
    def body_bytes(self) -> int:
        """Estimated size of its payload."""
        return len(self.job.payload)


class AdmissionKind(StrEnum):
    """Result of the admission of a job."""

    ACCEPTED = "accepted"
    KNOWN = "known"
    CONFLICT = "conflict"
    OVER_QUOTA = "over_quota"
    OVERSPENT = "overspent"
    LETTER_CLOSED = "letter_closed"


@dataclass(frozen=True)
class Admission:
    """The result of admitting one :class:`NewJob`.

    Attributes:
      kind: ``accepted``: it is a job now. ``known``: a duplicate; the key already has this job. ``conflict``:
        the key has a different request. ``over_quota``: the tenant has reached its quota of open jobs.
        ``overspent``: the job has no room in what its tenant may spend in this day or month.
        ``letter_closed``: it would retry a dead letter that is closed, and whose retry is gone.
      job_id: The job that has the key; if rejected, the rejected one.
      state: Of the job that has the key; None if rejected.
      dispatch: Its latest dispatch; 0 is none.
      pool: The pool of that.
      depth: Open jobs with a hold on the pool, this one counted; over quota, the tenant's open jobs;
        otherwise 0.
      overspent: What it has no room in.
      degraded_from: Of the job that has the key, see :class:`~tether.statuses.JobRecord`.
    """

    kind: AdmissionKind
    job_id: JobId
    state: JobState | None
    dispatch: int = 0
    pool: PoolName | None = None
    depth: int = 0
    overspent: Overspent | None = None
    degraded_from: str | None = None


def admit(connection: Connection, new_jobs: list[NewJob]) -> list[Admission]:
    """Admit jobs independently: a rejected one does not affect the others.

    A job with a pool is ``accepted`` with dispatch 1, an outbox row and a hold on the pool's capacity; one
    without, or whose pool has no room for it, is ``parked``. Either holds one of its
    tenant's quota. Of two with the same key, the first wins.
    One that retries a dead letter closes it, if that is still open.
    """
    firsts: dict[_Key, NewJob] = {}
    for job in new_jobs:
        firsts.setdefault(_key(job), job)
    letters = _letters_of(connection, firsts.values())
    earlier = _jobs_by_key(connection, list(firsts))
    closed = {
        key
        for key, job in firsts.items()
        if job.retry_of is not None
        and key not in earlier
        and letters.get(job.retry_of) is not LetterState.OPEN
    }
    # In the order of their keys: two transactions with the same keys wait for each other one way only.
    wanted = [key for key in sorted(firsts) if key not in earlier and key not in closed]
    fresh = insert_new_rows(connection, jobs, "job_id", _KEY, [_columns(firsts[key]) for key in wanted])
    earlier |= _jobs_by_key(connection, [key for key in wanted if firsts[key].job_id not in fresh])
    claims = _claim(connection, [firsts[key] for key in firsts if key not in earlier and key not in closed])
    if letters:
        _close_letters(connection, firsts, earlier, {*closed, *_keys_of(firsts, claims.refused)})

    answers: list[Admission] = []
    answered: set[_Key] = set()
    for job in new_jobs:
        key = _key(job)
        first = firsts[key]
        if key in closed:
            answers.append(Admission(AdmissionKind.LETTER_CLOSED, job.job_id, None))
        elif key in earlier:
            answers.append(_known_row(earlier[key], job))
        elif first.job_id in claims.refused:
            answers.append(replace(claims.refused[first.job_id], job_id=job.job_id))
        else:
            kind, depth = AdmissionKind.ACCEPTED, claims.depths.get(first.job_id, 0)
            if key in answered:
                kind, depth = _known_or_conflict(first.digest, first.retry_of, job), 0
            lesser = first.degraded_from
            if first.job_id in claims.without_room:
                answers.append(Admission(kind, first.job_id, JobState.PARKED, degraded_from=lesser))
            else:
                state, dispatch = _beginning(first)
                beginning = state, dispatch, first.pool, depth
                answers.append(Admission(kind, first.job_id, *beginning, degraded_from=lesser))
        answered.add(key)
    return answers


@dataclass
class _Claims:
    """What the counters said: who is over quota, whose pool has no room, and the others' depths."""

    refused: dict[JobId, Admission] = field(default_factory=dict)
    without_room: set[JobId] = field(default_factory=set)
    depths: dict[JobId, int] = field(default_factory=dict)


def _key(job: NewJob) -> _Key:
    return job.tenant_id, job.correlation_id, job.retry_token


def _beginning(job: NewJob) -> tuple[JobState, int]:
    return (JobState.PARKED, 0) if job.pool is None else (JobState.ACCEPTED, 1)


def is_same_job(digest: str, retry_of: JobId | None, mine: str, my_retry_of: JobId | None) -> bool:
    """Whether two jobs with the same key are one: of the same request, or retries of the same dead job, whose
    requests another version may have written in another way."""
    return digest == mine or (my_retry_of is not None and retry_of == my_retry_of)


def _known_or_conflict(digest: str, retry_of: JobId | None, job: NewJob) -> AdmissionKind:
    is_known = is_same_job(digest, retry_of, job.digest, job.retry_of)
    return AdmissionKind.KNOWN if is_known else AdmissionKind.CONFLICT


def _letters_of(connection: Connection, new_jobs: Iterable[NewJob]) -> dict[JobId, LetterState]:
    retried = [job.retry_of for job in new_jobs if job.retry_of is not None]
    return locked_letters(connection, retried) if retried else {}


def _keys_of(firsts: Mapping[_Key, NewJob], job_ids: Container[JobId]) -> list[_Key]:
    return [key for key, job in firsts.items() if job.job_id in job_ids]


def _close_letters(
    connection: Connection,
    firsts: Mapping[_Key, NewJob],
    earlier: Mapping[_Key, AnyRow],
    but: Container[_Key],
) -> None:
    """Link dead letters with the jobs that have their keys, whether these are new or not."""
    for key, job in firsts.items():
        if job.retry_of is None or key in but:
            continue
        job_id = job.job_id
        if key in earlier:
            if _known_row(earlier[key], job).kind is not AdmissionKind.KNOWN:
                continue
            job_id = JobId(earlier[key].job_id)
        close_as_retried(connection, job.retry_of, job_id, job.now_ms)


def _known_row(row: AnyRow, job: NewJob) -> Admission:
    kind = _known_or_conflict(row.digest, row.retry_of, job)
    return Admission(
        kind,
        JobId(row.job_id),
        JobState(row.state),
        row.dispatch,
        row.pool,
        degraded_from=text_or_none(row.degraded_from),
    )


def _columns(job: NewJob) -> dict[str, object]:
    state, dispatch = _beginning(job)
    return {
        **placeable_columns(job.job),
        "correlation_id": job.correlation_id,
        "retry_token": job.retry_token,
        "retry_of": job.retry_of,
        "digest": job.digest,
        "labels": compact_json(dict(job.labels)),
        "state": state.value,
        "dispatch": dispatch,
        "pool": job.pool,
        "created_at": job.now_ms,
        "updated_at": job.now_ms,
        "due_at": _due_at(job),
        "retention_ms": job.retention_ms,
        "degraded_from": job.degraded_from,
    }


def _due_at(job: NewJob) -> int:
    """When the relay hands it over, or a pool is chosen for it. Only a job that may run now is handed over
    by its submitter."""
    if job.job.not_before > job.now_ms:
        return job.job.not_before
    return job.now_ms + (SUBMITTER_GRACE_MS if job.pool is not None else 0)


def _jobs_by_key(connection: Connection, keys: list[_Key]) -> dict[_Key, AnyRow]:
    rows = rows_with_keys(connection, jobs, _KNOWN_COLUMNS, _KEY, keys)
    return {(row.tenant_id, row.correlation_id, row.retry_token): row for row in rows}


def _claim(connection: Connection, accepted: list[NewJob]) -> _Claims:
    claims = _Claims()
    claims.refused = _overspent(connection, accepted)
    if claims.refused:
        accepted = [job for job in accepted if job.job_id not in claims.refused]
    if not accepted:
        return claims
    ids = [job.job_id for job in accepted]
    _insert_holds(connection, ids)
    insert_labels(connection, _label_keys(accepted))
    insert_decisions(connection, [Decided(job.job_id, 1, job.pool, job.decision) for job in accepted])
    quotas = _quotas(connection, {job.tenant_id for job in accepted})
    moves = _moves(accepted)
    # All are counted first, and who is over its quota is taken out again: mostly nobody is.
    after = move_counters(connection, moves)
    held = {counter: after[counter] - change for counter, change in moves.items()}
    over_quota = _over_quota(accepted, quotas, held) if quotas else {}
    if over_quota:
        claims.refused |= over_quota
        refused = [job for job in accepted if job.job_id in over_quota]
        delete_labels(connection, _label_keys(refused))
        for table in (dispatches, decisions, holds, jobs):
            delete_of_jobs(connection, table, over_quota)
        # Its windows are locked already.
        free_spending(connection, [job.job_id for job in refused if not job.quotas.is_unlimited])
        accepted = [job for job in accepted if job.job_id not in claims.refused]
        moves = _moves(accepted)
        after |= move_counters(connection, _less(_moves(refused)))
    without_room = _without_room(accepted, moves, after)
    if without_room:
        after |= _park(connection, without_room)
        claims.without_room = {job.job_id for job in without_room}
    for job in reversed(accepted):
        if job.pool is not None and job.job_id not in claims.without_room:
            claims.depths[job.job_id] = after[CAPACITY, job.pool]
            after[CAPACITY, job.pool] -= 1
    return claims


def _less(moves: Moves) -> Moves:
    return Counter({counter: -change for counter, change in moves.items()})


def _overspent(connection: Connection, accepted: list[NewJob]) -> dict[JobId, Admission]:
    """Hold what jobs may spend, and delete those that have no room for it."""
    wanted = [
        WantedSpending(job.job_id, job.tenant_id, job.quotas, job.job.cost + job.job.max_tokens, job.now_ms)
        for job in accepted
        # Looked at as it is first: of most jobs it is this one.
        if job.quotas is not UNLIMITED and not job.quotas.is_unlimited
    ]
    refused = hold_spending(connection, wanted)
    if refused:
        delete_of_jobs(connection, jobs, refused)
    return {
        job_id: Admission(AdmissionKind.OVERSPENT, job_id, None, overspent=why)
        for job_id, why in refused.items()
    }


def _without_room(accepted: list[NewJob], moves: Moves, after: Mapping[tuple[str, str], int]) -> list[NewJob]:
    """The jobs for which their pools have no room, the counters being locked with all of them in."""
    held = {counter: after[counter] - change for counter, change in moves.items()}
    refused = []
    for job in accepted:
        if job.pool is None:
            continue
        total, share = (CAPACITY, job.pool), (SHARE, share_name(job.pool, job.tenant_id))
        if has_room(job.bound, held[total], held[share]):
            held[total] += 1
            held[share] += 1
        else:
            refused.append(job)
    return refused


def _park(connection: Connection, refused: list[NewJob]) -> dict[tuple[str, str], int]:
    """Park jobs that were just inserted. Return the counters that fell."""
    changes = [
        {
            "job_id": job.job_id,
            "state": JobState.PARKED.value,
            "dispatch": 0,
            "pool": None,
            "due_at": job.now_ms,
        }
        for job in sorted(refused, key=lambda job: job.job_id)
    ]
    update_rows(connection, jobs, "job_id", changes)
    ids = [job.job_id for job in refused]
    delete_of_jobs(connection, dispatches, ids)
    replace_decisions(connection, [Decided(job.job_id, 1, None, job.decision) for job in refused])
    moves: Moves = Counter()
    free_holds(connection, ids, (CAPACITY,), moves)
    return move_counters(connection, moves)


def _label_keys(new_jobs: list[NewJob]) -> list[LabelKey]:
    labelled = (job for job in new_jobs if job.labels)
    return [key for job in labelled for key in label_keys(job.tenant_id, job.job_id, job.labels)]


def _insert_holds(connection: Connection, job_ids: list[JobId]) -> None:
    for statement in _hold_statements(is_postgres(connection)):
        connection.execute(statement, {"ids": job_ids})


@cache
def _hold_statements(postgres: bool) -> tuple[Insert, Insert]:
    """Write the outbox rows and the holds of jobs that were just inserted, from their rows."""
    are_these = is_among(postgres, jobs.c.job_id)
    have_pool = jobs.c.pool.is_not(None)
    place = (jobs.c.job_id, jobs.c.dispatch, jobs.c.pool, jobs.c.due_at, jobs.c.created_at)

    def hold(kind: str, name: ColumnElement[Any], share_of: ColumnElement[Any]) -> Select[Any]:
        the_kind = literal_column(f"'{kind}'", Text)
        one = literal_column("1", Integer)
        return select(jobs.c.job_id, the_kind, name, jobs.c.dispatch, one, jobs.c.created_at, share_of)

    quota = hold(QUOTA, jobs.c.tenant_id, literal_column("''", Text)).where(are_these)
    capacity = hold(CAPACITY, jobs.c.pool, jobs.c.tenant_id).where(are_these, have_pool)
    outbox = select(*place, *outbox_values(postgres)).where(are_these, have_pool)
    return (
        insert(dispatches).from_select([*(column.name for column in place), *OUTBOX_COLUMNS], outbox),
        insert(holds).from_select([column.name for column in holds.c], union_all(quota, capacity)),
    )


def _moves(accepted: list[NewJob]) -> Moves:
    moves: Moves = Counter((QUOTA, job.tenant_id) for job in accepted)
    for job in accepted:
        if job.pool is not None:
            note_capacity(moves, job.pool, job.tenant_id)
    return moves


def _quotas(connection: Connection, tenant_ids: set[TenantId]) -> dict[TenantId, int]:
    query = _tenants_with_quota(is_postgres(connection))
    found = connection.execute(query, {"ids": sorted(tenant_ids)})
    return {TenantId(row.tenant_id): row.quota for row in found}


@cache
def _tenants_with_quota(postgres: bool) -> Select[Any]:
    are_these = is_among(postgres, tenants.c.tenant_id)
    return select(tenants.c.tenant_id, tenants.c.quota).where(are_these, tenants.c.quota.is_not(None))


def _over_quota(
    accepted: list[NewJob], quotas: dict[TenantId, int], held: dict[tuple[str, str], int]
) -> dict[JobId, Admission]:
    refused: dict[JobId, Admission] = {}
    for job in accepted:
        counter = (QUOTA, job.tenant_id)
        if job.tenant_id in quotas and held[counter] >= quotas[job.tenant_id]:
            kind = AdmissionKind.OVER_QUOTA
            refused[job.job_id] = Admission(kind, job.job_id, None, depth=held[counter])
        else:
            held[counter] += 1
    return refused
