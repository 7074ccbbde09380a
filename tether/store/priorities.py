"""Priorities of jobs that wait: the row has the one that counts, the outbox and Redis follow it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, select

from tether.ids import JobId, TenantId
from tether.jobs import JobState, Priority
from tether.store.bulk import is_among, is_postgres, lock_jobs, update_rows
from tether.store.outbox import RANKS
from tether.store.rows import JobRow
from tether.store.schema import IS_OPEN, dispatches, jobs


class PriorityChange(NamedTuple):
    """Somebody wants a job to have another priority.

    Attributes:
      tenant_id: Whose job it must be; None where the caller may change any.
      now_ms: Milliseconds since the epoch.
    """

    tenant_id: TenantId | None
    job_id: JobId
    priority: Priority
    now_ms: int


@dataclass(frozen=True)
class PrioritisedRow:
    """A job after its change, as the database has it.

    Attributes:
      state: Where it is final, nothing was changed.
    """

    job_id: JobId
    tenant_id: TenantId
    state: JobState


class WantedPriority(NamedTuple):
    """The priority that a job is to have in Redis.

    Attributes:
      dispatch: The job's newest hand-over.
      priority: A :class:`Priority`, or whatever else stands in the row.
    """

    job_id: JobId
    dispatch: int
    priority: str


def change_priorities(connection: Connection, wanted: list[PriorityChange]) -> list[PrioritisedRow | None]:
    """Give jobs these priorities, and their outbox rows the ranks of them. What has ended stays as it is.

    Returns:
      For each the row; None where the job is not known, or another tenant's.
    """
    changes = list(map(PriorityChange._make, wanted))
    rows = lock_jobs(connection, [change.job_id for change in changes])
    # Of several for one job the last one counts.
    to = {change.job_id: change for change in changes if _is_open(rows.get(change.job_id), change.tenant_id)}
    ordered = [to[job_id] for job_id in sorted(to) if rows[job_id].priority is not to[job_id].priority]
    update_rows(
        connection,
        jobs,
        "job_id",
        [
            {"job_id": each.job_id, "priority": each.priority.value, "updated_at": each.now_ms}
            for each in ordered
        ],
    )
    ranks = [{"job_id": each.job_id, "rank": RANKS[each.priority]} for each in ordered]
    update_rows(connection, dispatches, "job_id", ranks)

    def answer(change: PriorityChange) -> PrioritisedRow | None:
        row = rows.get(change.job_id)
        if row is None or not _may_change(row, change.tenant_id):
            return None
        return PrioritisedRow(row.job_id, row.tenant_id, row.state)

    return list(map(answer, changes))


def wanted_priorities(connection: Connection, job_ids: list[JobId]) -> list[WantedPriority]:
    """What Redis is to have of these jobs; one that has ended, or is not known, is left out."""
    found = connection.execute(_wanted(is_postgres(connection)), {"ids": job_ids})
    return [WantedPriority(JobId(row.job_id), row.dispatch, row.priority) for row in found]


@cache
def _wanted(postgres: bool) -> Select[Any]:
    are_these = is_among(postgres, jobs.c.job_id)
    return select(jobs.c.job_id, jobs.c.dispatch, jobs.c.priority).where(are_these, IS_OPEN)


def _may_change(row: JobRow, tenant_id: TenantId | None) -> bool:
    return tenant_id is None or tenant_id == row.tenant_id


def _is_open(row: JobRow | None, tenant_id: TenantId | None) -> bool:
    return row is not None and _may_change(row, tenant_id) and not row.state.is_final
