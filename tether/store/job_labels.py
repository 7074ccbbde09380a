"""An index of jobs by label: a row for each pair of name and value that a job has.

A pair is kept as a digest: it may be longer than what Postgres can index, and hold characters that are no
text there. Who reads the index compares the labels of the jobs themselves.

Jobs that are older than the index get into it a few at a time, newest first, while the program runs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from sqlalchemy import Connection, delete, select, update

from tether.ids import JobId, TenantId
from tether.store.bad_rows import read_each
from tether.store.bulk import delete_rows, insert_absent_rows
from tether.store.rows import AnyRow, labels_from_text
from tether.store.schema import backfills, job_labels, jobs

BACKFILL = "job_labels"
"""The row of ``backfills`` that is there while older jobs are missing in the index."""


class LabelKey(NamedTuple):
    """What the index has of one label of one job."""

    tenant_id: TenantId
    label: int
    job_id: JobId


@lru_cache(maxsize=2_048)
def label_digest(name: str, value: str) -> int:
    """Return the 64 bits under which a label is indexed, as a signed integer."""
    pair = f"{len(name)}:{name}{value}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(pair, digest_size=8).digest(), "big", signed=True)


def label_keys(tenant_id: TenantId, job_id: JobId, labels: Mapping[str, str]) -> list[LabelKey]:
    """Return what the index has of one job."""
    return [LabelKey(tenant_id, label_digest(name, value), job_id) for name, value in labels.items()]


def insert_labels(connection: Connection, keys: list[LabelKey]) -> None:
    """Bring labels of jobs into the index. Those that are there already stay."""
    insert_absent_rows(connection, job_labels, [key._asdict() for key in keys])


def delete_labels(connection: Connection, keys: list[LabelKey]) -> None:
    """Take labels of jobs out of the index."""
    delete_rows(connection, job_labels, [key._asdict() for key in keys])


def labels_of(
    connection: Connection, job_ids: Collection[JobId]
) -> tuple[list[LabelKey], dict[JobId, Exception]]:
    """Return what the index should have of these jobs, and errors of those whose labels cannot be read: no
    filter finds them by a label either.

    No other transaction deletes the jobs before this one has ended: what it writes of them is never left
    behind.
    """
    query = select(jobs.c.tenant_id, jobs.c.job_id, jobs.c.labels).where(jobs.c.labels != "{}")
    query = query.order_by(jobs.c.job_id).with_for_update(read=True, key_share=True)

    def read(some: list[JobId]) -> Sequence[AnyRow]:
        return connection.execute(query.where(jobs.c.job_id.in_(some))).all()

    rows, errors = read_each(read, sorted(job_ids))
    keys: list[LabelKey] = []
    for tenant_id, job_id, text in rows:
        try:
            keys += label_keys(tenant_id, job_id, labels_from_text(text))
        except ValueError as error:
            # Written by another hand.
            errors[job_id] = error
    return keys, errors


def unindexed_up_to(connection: Connection) -> JobId | None:
    """Return the newest job that may be missing in the index, with all older ones; None if none is."""
    query = select(backfills.c.up_to).where(backfills.c.name == BACKFILL)
    return connection.execute(query).scalar_one_or_none()


class IndexedJobs(NamedTuple):
    """What was done to bring older jobs into the index.

    Attributes:
      has_more: Whether others are left.
      unreadable: Jobs that stay without an entry, since their labels cannot be read, and why.
    """

    has_more: bool
    unreadable: dict[JobId, Exception]


def index_older_jobs(connection: Connection, limit: int) -> IndexedJobs:
    """Bring up to ``limit`` jobs that are older than the index into it."""
    up_to = unindexed_up_to(connection)
    if up_to is None:
        return IndexedJobs(False, {})
    newest = select(jobs.c.job_id).where(jobs.c.job_id <= up_to).order_by(jobs.c.job_id.desc())
    # The last one of a batch is the first of the next: what is done twice changes nothing.
    job_ids = list(connection.execute(newest.limit(limit + 1)).scalars())
    keys, unreadable = labels_of(connection, job_ids)
    insert_labels(connection, keys)
    is_this = backfills.c.name == BACKFILL
    if len(job_ids) <= limit:
        connection.execute(delete(backfills).where(is_this))
        return IndexedJobs(False, unreadable)
    connection.execute(update(backfills).where(is_this).values(up_to=job_ids[-1]))
    unreadable.pop(job_ids[-1], None)
    return IndexedJobs(True, unreadable)
