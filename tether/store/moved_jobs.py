"""Jobs that an operator moves out of a pool: where from, and where to, is noted before they are given back,
so that the choice of their next pool knows it whoever makes it."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, bindparam, update

from tether.ids import JobId, PoolName
from tether.store.bulk import lock_jobs
from tether.store.schema import IS_OPEN, jobs


class JobMove(NamedTuple):
    """A job that waits in ``pool`` is to be placed in another: ``to`` if that can serve it; None leaves the
    choice."""

    job_id: JobId
    pool: PoolName
    to: PoolName | None


def note_moves(connection: Connection, moves: list[JobMove]) -> list[bool]:
    """Note where jobs are moved. Nothing else of them changes.

    Returns:
      For each whether it is in its pool still, and has not ended.
    """
    items = list(map(JobMove._make, moves))
    rows = lock_jobs(connection, [item.job_id for item in items])
    noted = {
        item.job_id: item
        for item in items
        if (row := rows.get(item.job_id)) is not None and row.pool == item.pool and not row.state.is_final
    }
    if noted:
        connection.execute(
            _NOTE,
            [
                {"of_job": job_id, "out_of": noted[job_id].pool, "into": noted[job_id].to}
                for job_id in sorted(noted)
            ],
        )
    return [item.job_id in noted for item in items]


_NOTE = (
    update(jobs)
    .where(jobs.c.job_id == bindparam("of_job"), IS_OPEN)
    .values(moved_from=bindparam("out_of"), moved_to=bindparam("into"))
)
