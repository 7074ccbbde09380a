"""What Redis knows of one job's attempts: the one that runs, and those whose ends no outcome has told yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis

from tether.broker.keys import Keys
from tether.broker.pools.attempt_log import AttemptLog, read_attempt_log
from tether.ids import BootId, DrawId, JobId, PoolName
from tether.outcomes import Fence

_FIELDS = (
    *("state", "dispatch", "attempt", "draw", "worker", "pool", "offset"),
    *("drawn_at", "drawn_offset", "placed_at", "log", "logged"),
)


@dataclass(frozen=True, kw_only=True)
class LiveAttempts:
    """A job's hash, as far as it tells of attempts. Times are milliseconds since the epoch.

    Attributes:
      state: As the hash has it.
      fence, worker: Of the last attempt; attempt 0 where the dispatch was not drawn yet.
      offset: Where the stream stands.
      started_at, start_offset: Of the attempt that runs; 0 where none does.
      placed_at: When the dispatch was placed.
    """

    state: str
    fence: Fence
    worker: BootId
    pool: PoolName
    offset: int
    started_at: int
    start_offset: int
    placed_at: int
    log: AttemptLog


def live_attempts(client: redis.Redis, keys: Keys, job_id: JobId) -> LiveAttempts | None:
    """Return what Redis knows of a job; None where it does not know it, or what it holds cannot be read.

    Raises:
      OUTAGE_ERRORS: Redis is away.
    """
    try:
        found: Any = client.hmget(keys.job(job_id), *_FIELDS)
    except redis.ResponseError:
        # A key of another type, which the scripts put right.
        return None
    *texts, log, logged = found
    values = dict(
        zip(_FIELDS, (text.decode(errors="replace") if text else "" for text in texts), strict=False)
    )
    if not values["state"]:
        return None
    numbers = ("dispatch", "attempt", "offset", "drawn_at", "drawn_offset", "placed_at")
    dispatch, attempt, offset, started_at, start_offset, placed_at = (
        _count(values[name]) for name in numbers
    )
    return LiveAttempts(
        state=values["state"],
        fence=Fence(dispatch, attempt, DrawId(values["draw"])),
        worker=BootId(values["worker"]),
        pool=PoolName(values["pool"]),
        offset=offset,
        started_at=started_at,
        start_offset=start_offset,
        placed_at=placed_at,
        log=read_attempt_log(log, logged),
    )


def _count(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 17 else 0
