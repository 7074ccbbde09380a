"""Jobs that expire unless they have begun, and those that have."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select

from tether.ids import JobId
from tether.store.bulk import update_rows
from tether.store.end_requests import RequestedRow, rows_where
from tether.store.schema import IS_OPEN, MAY_EXPIRE_UNBEGUN, jobs

_IS_UNBEGUN = (IS_OPEN, MAY_EXPIRE_UNBEGUN, jobs.c.requested.is_(None))


def unbegun(connection: Connection, now_ms: int, limit: int, offset: int = 0) -> list[JobId]:
    """Jobs that are not final at or past ``expires_at``, that have not begun for all that the database knows,
    and whose end nobody has asked for yet; the longest past first, but the first ``offset`` of them."""
    query = select(jobs.c.job_id).where(*_IS_UNBEGUN, jobs.c.expires_at <= now_ms)
    query = query.order_by(jobs.c.expires_at, jobs.c.job_id)
    return list(connection.execute(query.limit(limit).offset(offset)).scalars())


def unbegun_rows(connection: Connection, job_ids: Sequence[JobId]) -> list[RequestedRow]:
    """Those of these jobs that are still such.

    Raises:
      ValueError: One has a state that this version does not know.
    """
    return rows_where(connection, job_ids, *_IS_UNBEGUN)


def note_begun(connection: Connection, job_ids: Sequence[JobId]) -> None:
    """Note that these jobs have begun, or may have: they do not expire for want of that any more. What has
    begun has for ever, so it does not matter what became of them meanwhile."""
    update_rows(
        connection, jobs, "job_id", [{"job_id": job_id, "expires_at": 0} for job_id in sorted(set(job_ids))]
    )
