"""Jobs that Redis knows and nobody would ever find there: their lease, or their entry in a list, is lost."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tether.broker.keys import ALONE
from tether.broker.pools.pools import Pools
from tether.broker.redis.connections import each_answer
from tether.broker.scripts import rows
from tether.ids import JobId, PoolName, TenantId
from tether.jobs import JobState

MAX_CHECKED = 256
"""Jobs that are looked for in one step; each list that one of them should stand in is read once."""

_FIELDS = ("state", "dispatch", "pool", "priority", "tenant", "ticket")


class LostEntries:
    """Remembers from one reconcile to the next which jobs were seen in no lease and no list.

    A job moves between them while they are read: only one that was missed twice is looked for. Where a job
    stands in its list, and its pool is missing among the pools, that is named there again.
    """

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self._unseen_before: frozenset[tuple[JobId, int]] = frozenset()
        self._missed: deque[tuple[JobId, int]] = deque()

    def note(self, unseen: Mapping[JobId, int]) -> None:
        """Say what a walk has not met. What it and the one before have both missed, :meth:`look` looks for.

        Args:
          unseen: Dispatches of jobs that wait or run in Redis by their hash, and were seen nowhere else.
        """
        now = frozenset(unseen.items())
        self._missed = deque(sorted(now & self._unseen_before))
        self._unseen_before = now

    @property
    def are_missed(self) -> bool:
        """Whether there are jobs to look for."""
        return bool(self._missed)

    def look(self) -> list[JobId]:
        """Look for the next :data:`MAX_CHECKED` jobs, and return those that are lost.

        Raises:
          OUTAGE_ERRORS: Redis is away.
        """
        some = dict(self._missed.popleft() for _ in range(min(len(self._missed), MAX_CHECKED)))
        hashes = {
            job_id: each for job_id, each in self._hashes(some).items() if each.dispatch == some[job_id]
        }
        lost = self._not_found(hashes)
        # Who has moved since its hash was read was looked for in the wrong place.
        again = self._hashes(lost)
        return [job_id for job_id in lost if again.get(job_id) == hashes[job_id]]

    def _hashes(self, job_ids: Iterable[JobId]) -> dict[JobId, _Waiting]:
        job_ids = list(job_ids)
        if not job_ids:
            return {}
        pipeline = self._pools.client.pipeline(transaction=False)
        for job_id in job_ids:
            pipeline.hmget(self._pools.keys.job(job_id), *_FIELDS)
        return {
            job_id: _read(fields)
            for job_id, fields in zip(job_ids, each_answer(pipeline), strict=True)
            if not isinstance(fields, Exception)
        }

    def _not_found(self, hashes: Mapping[JobId, _Waiting]) -> list[JobId]:
        running = [job_id for job_id, each in hashes.items() if each.state == JobState.RUNNING]
        placed = [job_id for job_id, each in hashes.items() if each.state == JobState.PLACED]
        lanes = list(dict.fromkeys(hashes[job_id].lane for job_id in placed))
        if not running and not placed:
            return []
        keys = self._pools.keys
        pipeline = self._pools.client.pipeline(transaction=False)
        for job_id in running:
            pipeline.zscore(keys.leases, f"j {job_id}")
        for pool, priority, tenant in lanes:
            for waiting_class in (priority, f"{ALONE}{priority}"):
                pipeline.zscore(keys.pool_tenants(pool, waiting_class), tenant)
                pipeline.lrange(keys.pool_jobs(pool, waiting_class, tenant), 0, -1)
            pipeline.sismember(keys.pools, pool)
        answers = iter(each_answer(pipeline))
        lost = [job_id for job_id in running if not _is_there(next(answers))]
        entries: dict[_Lane, frozenset[bytes]] = {}
        unnamed: set[PoolName] = set()
        for lane in lanes:
            *places, is_pool_known = itertools.islice(answers, 5)
            entries[lane] = frozenset(
                entry
                for tenant_place, listed in rows(places, 2)
                if _is_there(tenant_place) and _is_there(listed)
                for entry in listed
            )
            if isinstance(is_pool_known, Exception) or not is_pool_known:
                unnamed.add(lane[0])
        for job_id in placed:
            each = hashes[job_id]
            if f"{job_id} {each.ticket}".encode() not in entries[each.lane]:
                lost.append(job_id)
            elif each.lane[0] in unnamed:
                unnamed.remove(each.lane[0])
                self._pools.name_pool(each.lane[0])
        return lost


_Lane = tuple[PoolName, str, TenantId]


@dataclass(frozen=True)
class _Waiting:
    """What a job's hash says of where the job is to be found."""

    state: str
    dispatch: int
    lane: _Lane
    ticket: str


def _read(fields: Sequence[bytes | None]) -> _Waiting:
    state, dispatch, pool, priority, tenant, ticket = [
        value.decode(errors="replace") if value is not None else "" for value in fields
    ]
    number = int(dispatch) if dispatch.isdecimal() else -1
    return _Waiting(state, number, (PoolName(pool), priority, TenantId(tenant)), ticket)


def _is_there(answer: Any) -> bool:
    return answer is not None and not isinstance(answer, Exception)
