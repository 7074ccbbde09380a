"""Removing what ended long ago. A dead job stays until its dead letter is closed."""

from __future__ import annotations

from sqlalchemy import Connection, delete, exists, or_, select, union

from tether.ids import JobId
from tether.store.job_labels import delete_labels, labels_of
from tether.store.schema import (
    HAS_RETENTION,
    IS_CLOSED,
    IS_FINAL,
    IS_FINAL_BUT_DEAD,
    KEPT_UNTIL,
    attempts,
    dead_letters,
    decisions,
    dispatches,
    jobs,
)


def prunable_jobs(
    connection: Connection, older_than_ms: int, limit: int, offset: int = 0, *, now_ms: int
) -> list[JobId]:
    """Ids of jobs that ended before ``older_than_ms`` (milliseconds since the epoch), or whose own retention
    is over at ``now_ms``, the oldest first, but the first ``offset`` of them. Of the dead those whose dead
    letters were closed before that."""
    # Each part ends after as many as can be needed of it: neither is ever sorted as a whole.
    ended = (
        select(jobs.c.job_id, jobs.c.finished_at.label("ended_at"))
        .where(IS_FINAL_BUT_DEAD, jobs.c.finished_at < older_than_ms)
        .order_by(jobs.c.finished_at)
        .limit(limit + offset)
        .subquery()
    )
    own = (
        select(jobs.c.job_id, jobs.c.finished_at.label("ended_at"))
        .where(IS_FINAL_BUT_DEAD, HAS_RETENTION, now_ms > KEPT_UNTIL)
        .order_by(KEPT_UNTIL)
        .limit(limit + offset)
        .subquery()
    )
    retry = jobs.alias("retry")
    # A retry that is sent again finds its job by the letter, until that has ended as long ago.
    is_under_way = exists().where(
        retry.c.job_id == dead_letters.c.retried_as,
        or_(retry.c.finished_at.is_(None), retry.c.finished_at >= older_than_ms),
    )
    closed = (
        select(dead_letters.c.job_id, dead_letters.c.closed_at.label("ended_at"))
        .where(IS_CLOSED, dead_letters.c.closed_at < older_than_ms, ~is_under_way)
        .order_by(dead_letters.c.closed_at)
        .limit(limit + offset)
        .subquery()
    )
    # A job may be in two of them.
    found = union(select(ended), select(own), select(closed)).subquery()
    query = select(found.c.job_id).order_by(found.c.ended_at, found.c.job_id).limit(limit).offset(offset)
    return list(connection.execute(query).scalars())


def prune(connection: Connection, job_ids: list[JobId]) -> list[bool]:
    """Delete jobs that have ended, with their attempts, dead letters and what is kept of their choices.

    Their keys are free from then on: the same submission would be a new job.

    Returns:
      For each whether it was there.
    """
    # Locked in the order of their ids, as everywhere: an outcome that comes late may hold one.
    locked = select(jobs.c.job_id).where(jobs.c.job_id.in_(job_ids), IS_FINAL).order_by(jobs.c.job_id)
    found = set(connection.execute(locked.with_for_update()).scalars())
    if found:
        delete_labels(connection, labels_of(connection, found)[0])
        for table in (attempts, dead_letters, decisions, dispatches, jobs):
            connection.execute(delete(table).where(table.c.job_id.in_(sorted(found))))
    return [job_id in found for job_id in job_ids]
