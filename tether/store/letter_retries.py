"""What the retry of a dead letter is made from, and how retried jobs are linked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Connection, select

from tether.dead_letters import LetterState, RetryLink
from tether.envelopes import Placeable
from tether.ids import JobId, TenantId
from tether.jobs import JobState
from tether.store.placeables import PLACEABLE_COLUMNS, placeable_of
from tether.store.rows import AnyRow, labels_from_text
from tether.store.schema import dead_letters, jobs

MAX_CHAIN = 20
"""Jobs of a chain of retries that are looked up on either side of one."""


class TokenOwner(NamedTuple):
    """The dead job whose letter has a token, and its tenant."""

    job_id: JobId
    tenant_id: TenantId


class LetterKey(NamedTuple):
    """What decides whether a letter can be retried."""

    job_id: JobId
    tenant_id: TenantId
    retry_token: str
    retryable: bool
    state: LetterState
    closed_at: int | None
    retried_as: JobId | None


class RetrySource(NamedTuple):
    """What a retry is made from.

    Attributes:
      created_at: When the dead job was accepted, in milliseconds since the epoch.
    """

    job: Placeable
    labels: Mapping[str, str]
    correlation_id: str
    created_at: int


_KEY_COLUMNS = tuple(
    dead_letters.c[name]
    for name in ("job_id", "tenant_id", "retry_token", "retryable", "closed", "closed_at", "retried_as")
)


def owner_of_token(connection: Connection, retry_token: str, tenant_id: TenantId | None) -> TokenOwner | None:
    """Whose letter has this token; None if there is none, or not of this tenant: the two look alike."""
    query = select(dead_letters.c.job_id, dead_letters.c.tenant_id)
    query = query.where(dead_letters.c.retry_token == retry_token)
    if tenant_id is not None:
        query = query.where(dead_letters.c.tenant_id == tenant_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else TokenOwner(JobId(row.job_id), TenantId(row.tenant_id))


def letter_keys(connection: Connection, job_ids: list[JobId]) -> list[LetterKey]:
    """What decides whether these letters can be retried.

    Raises:
      ValueError: One has a state that this version does not know.
    """
    query = select(*_KEY_COLUMNS).where(dead_letters.c.job_id.in_(job_ids))
    return [_key(row) for row in connection.execute(query)]


def _key(row: AnyRow) -> LetterKey:
    return LetterKey(
        JobId(row.job_id),
        TenantId(row.tenant_id),
        row.retry_token,
        bool(row.retryable),
        LetterState(row.closed or LetterState.OPEN),
        row.closed_at,
        row.retried_as,
    )


def retry_source(connection: Connection, job_id: JobId) -> RetrySource | None:
    """What a job's retry is made from; None if the job is gone.

    Raises:
      ValueError: It cannot be read.
    """
    query = select(*PLACEABLE_COLUMNS, jobs.c.labels, jobs.c.correlation_id, jobs.c.created_at)
    row = connection.execute(query.where(jobs.c.job_id == job_id)).one_or_none()
    if row is None:
        return None
    labels = labels_from_text(row.labels)
    return RetrySource(placeable_of(row), labels, row.correlation_id, row.created_at)


def retried_jobs(connection: Connection, job_ids: list[JobId]) -> list[tuple[JobId, JobId]]:
    """Dead jobs, each with the one that retries it; only those that were retried."""
    query = select(dead_letters.c.job_id, dead_letters.c.retried_as)
    query = query.where(dead_letters.c.job_id.in_(job_ids), dead_letters.c.retried_as.is_not(None))
    return [(JobId(row.job_id), JobId(row.retried_as)) for row in connection.execute(query)]


def retry_chain(connection: Connection, job_id: JobId, tenant_id: TenantId | None) -> list[RetryLink]:
    """The jobs that a job retries and that retry it, the first one first. It ends before one that is gone or
    cannot be read."""
    before: list[RetryLink] = []
    at, seen = _link(connection, job_id, tenant_id), {job_id}
    if at is None:
        return []
    after = [at[0]]
    back: JobId | None = at[1]
    while back is not None and back not in seen and len(before) < MAX_CHAIN:
        seen.add(back)
        found = _link(connection, back, tenant_id)
        if found is None:
            break
        before.append(found[0])
        back = found[1]
    forward = at[2]
    while forward is not None and forward not in seen and len(after) <= MAX_CHAIN:
        seen.add(forward)
        found = _link(connection, forward, tenant_id)
        if found is None:
            break
        after.append(found[0])
        forward = found[2]
    return [*reversed(before), *after]


def _link(
    connection: Connection, job_id: JobId, tenant_id: TenantId | None
) -> tuple[RetryLink, JobId | None, JobId | None] | None:
    """One job, the one that it retries, and the one that retries it."""
    joined = jobs.outerjoin(dead_letters, dead_letters.c.job_id == jobs.c.job_id)
    query = select(
        *(jobs.c.state, jobs.c.created_at, jobs.c.retry_of, dead_letters.c.reason, dead_letters.c.retried_as)
    ).select_from(joined)
    query = query.where(jobs.c.job_id == job_id)
    if tenant_id is not None:
        query = query.where(jobs.c.tenant_id == tenant_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    try:
        state = JobState(row.state)
    except ValueError:
        return None
    link = RetryLink(job_id, state, row.created_at, row.reason)
    return link, row.retry_of, row.retried_as
