"""Which workers are held from pools, since they fail what others do: as the scripts of pool jobs note it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import redis

from tether.broker.keys import Keys
from tether.broker.redis.connections import each_answer
from tether.discovery.fleet.held_back import Held, HeldBack, HeldPool
from tether.ids import PoolName, TenantId, WorkerId

MAX_CHARACTERS = 64

MAX_HELD = 256
"""Workers that are looked at, of those that are held."""

MAX_FAILED_TENANTS = 8
"""As in ``pool/prelude/3_health.lua``."""

HEALTH_LIFE_MS = 3_600_000
"""As there."""

PROBE_MS = 60_000
"""A worker that was given a job to try so long after its pause may be given another: nobody says whether the
first still runs."""


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
    return {
        worker: tuple(record.held_pool(name, now) for name, record in records.items())
        for worker, records in _read_records(client, keys, workers, now).items()
    }


def read_held_back(client: redis.Redis, keys: Keys, workers: Sequence[WorkerId], now: int) -> Held:
    """The same for who places jobs.

    Args:
      workers: Those that may be held; others are left out.
      now: Milliseconds of Redis's clock.

    Raises:
      OUTAGE_ERRORS: Redis is away.
    """
    if not workers:
        return {}
    return {
        worker: {name: record.held_back(name, now) for name, record in records.items()}
        for worker, records in _read_records(client, keys, workers, now).items()
    }


class _Record(NamedTuple):
    """What the scripts keep of a worker that is held."""

    tenants: frozenset[TenantId]
    failed: int
    code: str
    since: int
    pause: int
    until_ms: int
    is_tried: bool
    others_succeeded: bool

    @property
    def is_for_all(self) -> bool:
        return len(self.tenants) > MAX_FAILED_TENANTS or (len(self.tenants) > 1 and self.others_succeeded)

    def held_back(self, name: PoolName, now: int) -> HeldBack:
        # A clock that was set back makes no pause longer.
        is_pausing = now < self.until_ms + self.is_tried * PROBE_MS and self.until_ms <= now + self.pause
        return HeldBack(
            tenants=self.tenants,
            is_for_all=self.is_for_all,
            may_try=not is_pausing,
            why=self.held_pool(name, now),
        )

    def held_pool(self, name: PoolName, now: int) -> HeldPool:
        return HeldPool(
            pool=name,
            failed=self.failed,
            code="".join(one for one in self.code[:MAX_CHARACTERS] if one.isprintable()),
            since_ms_ago=max(0, now - self.since),
            next_in_ms=max(0, min(self.until_ms - now, self.pause)),
            is_for_all=self.is_for_all,
            others_succeeded=self.others_succeeded,
        )


def _read_records(
    client: redis.Redis, keys: Keys, workers: Sequence[WorkerId], now: int
) -> dict[WorkerId, dict[PoolName, _Record]]:
    pipeline = client.pipeline(transaction=False)
    for worker in workers:
        pipeline.hgetall(keys.worker_health(worker))
    found: dict[WorkerId, dict[PoolName, _Record]] = {}
    for worker, texts in zip(workers, each_answer(pipeline), strict=True):
        if isinstance(texts, Exception):
            continue
        records = {
            PoolName(name.decode(errors="replace")): record
            for name, text in sorted(texts.items())
            if (record := _record(text, now)) is not None
        }
        if records:
            found[worker] = records
    return found


def _record(text: bytes, now: int) -> _Record | None:
    """A record by which a worker is held; None where it is not, or no longer."""
    try:
        record: Any = json.loads(text)
        pause, until_ms, since, at = (int(record[name]) for name in ("pause", "until_ms", "since", "at"))
        tenants = frozenset(TenantId(str(tenant)) for tenant in record["tenants"])
        failed, code = int(record["count"]), str(record.get("code", ""))
        is_tried, others = bool(record.get("probe")), record.get("others") is True
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    if pause <= 0 or at + HEALTH_LIFE_MS <= now:
        return None
    return _Record(tenants, failed, code, since, pause, until_ms, is_tried, others)
