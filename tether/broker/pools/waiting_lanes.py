"""What waits in a pool's lanes in Redis: how much, and which jobs, by page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import redis

from tether.broker.keys import Keys
from tether.broker.redis.connections import each_answer
from tether.ids import JobId, PoolName, TenantId, job_id_in
from tether.jobs import JobState, Priority

_WAITING = JobState.PLACED.value.encode()
_FIELDS = ("state", "dispatch", "ticket", "pool")


class LaneKey(NamedTuple):
    """A lane: the jobs of one tenant and one class that wait in one pool, first come, first served."""

    pool: PoolName
    priority: Priority
    tenant: TenantId


class LaneLoad(NamedTuple):
    """What waits in a lane in Redis: how many jobs, and an estimate of their bodies' bytes."""

    jobs: int
    body_bytes: int


class LanePlace(NamedTuple):
    """A place in a lane: the jobs of one tenant and one of the ``WAITING_CLASSES`` in one pool."""

    pool: PoolName
    waiting_class: str
    tenant: TenantId
    start: int = 0

    @property
    def tenant_bytes(self) -> bytes:
        """The tenant as Redis has it, whatever bytes these are."""
        return self.tenant.encode(errors="surrogateescape")


class WaitingDispatch(NamedTuple):
    """A dispatch that waits in a pool."""

    job_id: JobId
    dispatch: int


def tenants_waiting(
    client: redis.Redis, keys: Keys, pool: PoolName, waiting_class: str, start: int, count: int
) -> list[TenantId]:
    """Tenants with lanes of a class, from the ``start``-th on.

    Raises:
      redis.ResponseError: The key is of another type than ours.
    """
    found: Any = client.zrange(keys.pool_tenants(pool, waiting_class), start, start + count - 1)
    return [TenantId(tenant.decode(errors="surrogateescape")) for tenant in found]


def waiting_dispatches(
    client: redis.Redis, keys: Keys, places: Sequence[LanePlace], count: int
) -> list[WaitingDispatch]:
    """Those that wait at these places of lanes, at most ``count`` entries of each.

    Entries of jobs that wait elsewhere by now, or do not wait, are left out, and so is what cannot be read.
    """
    pipeline = client.pipeline(transaction=False)
    for place in places:
        name = keys.pool_jobs(place.pool, place.waiting_class, place.tenant)
        pipeline.lrange(name.encode(errors="surrogateescape"), place.start, place.start + count - 1)
    found: list[tuple[JobId, bytes, PoolName]] = []
    for place, entries in zip(places, each_answer(pipeline), strict=True):
        for entry in [] if isinstance(entries, Exception) else entries:
            name, _, ticket = entry.rpartition(b" ")
            job_id = job_id_in(name)
            if job_id is not None:
                found.append((job_id, ticket, place.pool))
    pipeline = client.pipeline(transaction=False)
    for job_id, _, _ in found:
        pipeline.hmget(keys.job(job_id), *_FIELDS)
    return [
        WaitingDispatch(job_id, int(dispatch))
        for (job_id, ticket, pool), answer in zip(found, each_answer(pipeline), strict=True)
        if not isinstance(answer, Exception)
        for state, dispatch, job_ticket, job_pool in [answer]
        if (state, job_ticket, job_pool) == (_WAITING, ticket, pool.encode()) and _is_number(dispatch)
    ]


def _is_number(text: bytes | None) -> bool:
    return text is not None and text.isdigit() and len(text) < 11
