"""Hand-overs as the database keeps them, made into what Redis takes."""

from __future__ import annotations

from tether.broker.pools import Dispatch
from tether.jobs import Priority
from tether.store.admissions import NewJob
from tether.store.placements import DueDispatch, WaitingJob


def of_new_job(job: NewJob, dispatch: int) -> Dispatch:
    """The first dispatch of a job that was just admitted with a pool."""
    assert job.pool is not None
    return Dispatch(
        job_id=job.job_id,
        dispatch=dispatch,
        pool=job.pool,
        tenant=job.tenant_id,
        priority=Priority(job.priority),
        weight=job.weight,
        deadline=job.deadline,
        cost=job.cost,
        body=job.body.encode(),
    )


def of_row(row: DueDispatch, *, lossy: bool = False) -> Dispatch:
    """A dispatch from the outbox, or one that Redis should have."""
    return Dispatch(
        job_id=row.job_id,
        dispatch=row.dispatch,
        pool=row.pool,
        tenant=row.tenant_id,
        priority=row.priority,
        weight=row.weight,
        deadline=row.deadline,
        cost=row.cost,
        body=row.body.encode(),
        lossy=lossy,
    )


def of_waiting(job: WaitingJob, pool: str, dispatch: int) -> Dispatch:
    """The next dispatch of a job that has waited in the database."""
    return Dispatch(
        job_id=job.job_id,
        dispatch=dispatch,
        pool=pool,
        tenant=job.tenant_id,
        priority=job.priority,
        weight=job.weight,
        deadline=job.deadline,
        cost=job.cost,
        body=job.body.encode(),
    )
