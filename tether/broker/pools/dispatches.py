"""Hand-overs of jobs to Redis: what one takes along, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from typing import Self

from tether.broker.pools.carried_job import CarriedJob, names_of
from tether.broker.scripts import Argument
from tether.envelopes import Placeable
from tether.ids import PoolName
from tether.jobs import Priority


@dataclass(frozen=True, kw_only=True)
class Dispatch(CarriedJob):
    """One hand-over of a job from the database to Redis.

    Attributes:
      dispatch: Number of the hand-over.
      priority: Its priority class.
      weight: The tenant's share relative to others, greater than 0.
      cost: Estimated number of tokens of the prompt.
      lossy: Whether Redis had it before and lost it.
      max_tokens: Tokens that it may generate; 0 where that is not known.
      expires_at: When it expires unless it has begun, in milliseconds since the epoch by Redis's clock; 0 is
        never, or that it has begun.
      failed_on: Ids of workers that failed it, with spaces between: others are given it first.
    """

    dispatch: int
    priority: Priority
    weight: float
    cost: int
    lossy: bool = False
    max_tokens: int = 0
    failed_on: str = ""
    expires_at: int = 0

    @classmethod
    def of(cls, job: Placeable, dispatch: int, pool: PoolName, *, lossy: bool = False) -> Self:
        """This hand-over of a job to a pool; ``lossy`` where Redis had it and lost it."""
        return cls(
            job_id=job.job_id,
            dispatch=dispatch,
            pool=pool,
            tenant=job.tenant_id,
            priority=job.priority,
            weight=job.weight,
            deadline=job.deadline,
            cost=job.cost,
            body=job.payload.encode(),
            options=job.options.encode(),
            lossy=lossy,
            max_tokens=job.max_tokens,
            failed_on=job.failed_on,
            expires_at=job.expires_at,
        )


class PlaceResult(StrEnum):
    """Result of a placement.

    Values:
      PLACED: It waits in its pool.
      KNOWN: Redis has this dispatch, or a newer one.
      CLOSED: The job must not run any more.
      FULL: As many jobs as may wait in its lane already: it stays in the outbox.
    """

    PLACED = "placed"
    KNOWN = "known"
    CLOSED = "closed"
    FULL = "full"


def read_place_result(text: str) -> PlaceResult:
    """What the script `place` answered.

    Raises:
      ValueError: It refuses the dispatch.
    """
    if text == "invalid":
        raise ValueError("the script `place` refuses it: a number, a name or its priority is impossible")
    return PlaceResult(text)


_PLACED_BY = ("job_id", "dispatch", "pool", "tenant", "priority", "lossy")
"""Fields that the script itself reads, from separate arguments; it stores the others under their names."""
_KEPT = names_of(Dispatch, but=(*_PLACED_BY, "began_in"))
_kept_of = attrgetter(*_KEPT)
_PAIRS: list[Argument] = [argument for name in _KEPT for argument in (name.encode(), b"")]


def place_arguments(dispatch: Dispatch, max_waiting: int) -> tuple[Argument, ...]:
    """What the script `place` is given: a dispatch, and how many jobs may wait in its lane before it."""
    kept = _PAIRS.copy()
    kept[1::2] = _kept_of(dispatch)
    return (
        *(dispatch.job_id, dispatch.dispatch, dispatch.pool, dispatch.tenant, dispatch.priority),
        *(int(dispatch.lossy), max_waiting, *kept),
    )
