"""Hand-overs as the database keeps them, made into what Redis takes."""

from __future__ import annotations

from typing import Protocol

from tether.broker.pools import Dispatch
from tether.jobs import Priority


class KeptJob(Protocol):
    """What the store's values of a job have in common: new, due, and waiting ones."""

    @property
    def job_id(self) -> str: ...
    @property
    def tenant_id(self) -> str: ...
    @property
    def priority(self) -> str: ...
    @property
    def weight(self) -> float: ...
    @property
    def deadline(self) -> int: ...
    @property
    def cost(self) -> int: ...
    @property
    def body(self) -> str: ...


def dispatch_of(job: KeptJob, dispatch: int, pool: str, *, lossy: bool = False) -> Dispatch:
    """One hand-over of a job to a pool; ``lossy`` where Redis had it and lost it."""
    return Dispatch(
        job_id=job.job_id,
        dispatch=dispatch,
        pool=pool,
        tenant=job.tenant_id,
        priority=Priority(job.priority),
        weight=job.weight,
        deadline=job.deadline,
        cost=job.cost,
        body=job.body.encode(),
        lossy=lossy,
    )
