"""What Redis knows of jobs, read without a script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis

from tether.broker.keys import Keys
from tether.broker.pools.lane_moves import last_told
from tether.broker.redis.connections import each_answer
from tether.ids import JobId

MAX_OFFSET = 2**31 - 1
"""Greatest offset that the scripts write, since the database's columns hold no greater one."""


@dataclass(frozen=True)
class KnownJob:
    """What Redis knows of a job: its state, dispatch and offset.

    Attributes:
      asked: See :func:`~tether.broker.pools.lane_moves.last_told`.
      has_begun: Whether a worker has begun it, as far as Redis remembers.
    """

    state: str
    dispatch: int
    offset: int
    asked: str = ""
    has_begun: bool = False


def known_jobs(
    client: redis.Redis, keys: Keys, job_ids: Sequence[JobId]
) -> list[KnownJob | Exception | None]:
    """What Redis knows of jobs, asked by this client: an error in the place of a job that cannot be read.

    Raises:
      OUTAGE_ERRORS: It is away.
    """
    pipeline = client.pipeline(transaction=False)
    for job_id in job_ids:
        pipeline.hmget(
            keys.job(job_id), "state", "dispatch", "offset", "attempt", "asked", "priority", "next"
        )
    return [_read_known(answer) for answer in each_answer(pipeline)]


def _read_known(answer: Any) -> KnownJob | Exception | None:
    if isinstance(answer, Exception):
        return answer
    state, dispatch, offset, attempt, *priorities = answer
    if not state:
        return None
    try:
        asked = last_told(state.decode(), *((priority or b"").decode() for priority in priorities))
        known = KnownJob(state.decode(), int(dispatch or 0), int(offset or 0), asked, bool(int(attempt or 0)))
    except ValueError as error:
        return error
    if known.dispatch < 0 or not 0 <= known.offset <= MAX_OFFSET:
        return ValueError(f"no job has dispatch {known.dispatch} and offset {known.offset}")
    return known
