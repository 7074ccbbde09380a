"""Which workers are held from pools, since they fail what others do: as the scripts of pool jobs note it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from tether.broker.keys import Keys
from tether.broker.redis.connections import each_answer
from tether.ids import PoolName, WorkerId

MAX_CHARACTERS = 64


@dataclass(frozen=True, kw_only=True)
class HeldPool:
    """A pool of which a worker gets one job at a time, with pauses.

    Attributes:
      pool: The pool.
      failed: Attempts in a row that failed.
      code: Of the last error.
      since_ms_ago: When the first of them failed.
      next_in_ms: When it may be given the next job; 0 is now.
      is_for_all: Whether it is held from the jobs of all tenants, not only of those whose jobs it failed.
      others_succeeded: Whether other workers had a success in the pool meanwhile.
    """

    pool: PoolName
    failed: int
    code: str
    since_ms_ago: int
    next_in_ms: int
    is_for_all: bool
    others_succeeded: bool

    def in_words(self) -> str:
        """Why it is held, and what follows."""
        attempts = f"{self.failed} attempts in a row failed" if self.failed != 1 else "1 attempt failed"
        why = f" ({self.code})" if self.code else ""
        others = "while other workers succeeded" if self.others_succeeded else "and no other worker succeeded"
        whose = "" if self.is_for_all else " of the tenants whose jobs failed"
        when = f"in {self.next_in_ms / 1000:.0f} s" if self.next_in_ms > 500 else "now"
        return (
            f"{attempts}{why} in {self.since_ms_ago / 1000:.0f} s, {others}: it gets one job{whose} at a "
            f"time until one succeeds, the next {when}"
        )


def read_held_pools(
    client: redis.Redis, keys: Keys, workers: Sequence[WorkerId]
) -> Mapping[WorkerId, tuple[HeldPool, ...]]:
    """From which pools these workers are held, in the order of their names; others are left out.

    Raises:
      OUTAGE_ERRORS: Redis is away.
    """
    if not workers:
        return {}
    seconds, microseconds = client.time()
    now = seconds * 1000 + microseconds // 1000
    pipeline = client.pipeline(transaction=False)
    for worker in workers:
        pipeline.hgetall(keys.worker_health(worker))
    found: dict[WorkerId, tuple[HeldPool, ...]] = {}
    for worker, records in zip(workers, each_answer(pipeline), strict=True):
        if isinstance(records, Exception):
            continue
        pools = [_held_pool(name, text, now) for name, text in sorted(records.items())]
        if any(pools):
            found[worker] = tuple(pool for pool in pools if pool is not None)
    return found


def _held_pool(name: bytes, text: bytes, now: int) -> HeldPool | None:
    try:
        record: Any = json.loads(text)
        pause, until_ms, since = int(record["pause"]), int(record["until_ms"]), int(record["since"])
        tenants, failed, code = len(record["tenants"]), int(record["count"]), str(record.get("code", ""))
        others = record.get("others") is True
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    if pause <= 0:
        return None
    return HeldPool(
        pool=PoolName(name.decode(errors="replace")),
        failed=failed,
        code="".join(one for one in code[:MAX_CHARACTERS] if one.isprintable()),
        since_ms_ago=max(0, now - since),
        next_in_ms=max(0, min(until_ms - now, pause)),
        is_for_all=tenants > MAX_FAILED_TENANTS or (tenants > 1 and others),
        others_succeeded=others,
    )


MAX_FAILED_TENANTS = 8
"""As in ``pool/prelude/3_health.lua``."""
