"""Removing what ended long ago. Nothing is removed unless somebody asks for it."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select

from tether.store.schema import HAS_ENDED, IS_FINAL, attempts, dead_letters, jobs


def prune(connection: Connection, older_than_ms: int, limit: int) -> int:
    """Delete jobs that ended before ``older_than_ms``, with their attempts and dead letters, oldest first.

    Their keys are free from then on: the same submission would be a new job.

    Args:
      older_than_ms: Milliseconds since the epoch.
      limit: Most jobs to delete in one transaction.

    Returns:
      How many jobs were deleted.
    """
    query = (
        select(jobs.c.job_id)
        .where(HAS_ENDED, IS_FINAL, jobs.c.finished_at < older_than_ms)
        .order_by(jobs.c.finished_at, jobs.c.job_id)
        .limit(limit)
    )
    job_ids = sorted(connection.execute(query).scalars())
    if not job_ids:
        return 0
    # Locked in the order of their ids, as everywhere: an outcome that comes late may hold one.
    locked = select(jobs.c.job_id).where(jobs.c.job_id.in_(job_ids)).order_by(jobs.c.job_id)
    job_ids = list(connection.execute(locked.with_for_update()).scalars())
    for table in (attempts, dead_letters, jobs):
        connection.execute(delete(table).where(table.c.job_id.in_(job_ids)))
    return len(job_ids)
