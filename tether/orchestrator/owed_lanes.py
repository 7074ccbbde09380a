"""Parks what the outbox owes to pools that nobody serves, some of it at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeAlias

from tether.ids import JobId, PoolName, TenantId
from tether.orchestrator.set_aside import FailedEntries
from tether.scheduling.lost_pools import pause_after
from tether.store.outbox import BEFORE_ALL, RANKS, owed_in_lane, owing_lanes
from tether.store.parking import OwedParking, ParkOwed
from tether.store.store import Store
from tether.store.waiting_jobs import MAX_TIME_MS

LANES = 64
"""Lanes of a class that a step looks at."""

JOBS = 256
"""Jobs of a class that a step parks, at most."""


LostShares: TypeAlias = Mapping[PoolName, Collection[TenantId] | None]

MayLeave: TypeAlias = Callable[[PoolName, Sequence[JobId]], Collection[JobId]]
"""Returns those of a pool's jobs that are given back."""


class ParkOwedLanes:
    """Walks over the lanes of the outbox, round and round. One thread uses it."""

    def __init__(self, store: Store, failed: FailedEntries[JobId]) -> None:
        """
        Args:
          failed: Where jobs are noted that cannot be parked.
        """
        self._store = store
        self._failed = failed
        self._park = ParkOwed(pause_after)
        self._after = dict.fromkeys(RANKS.values(), BEFORE_ALL)
        # Where the next page of a lane begins: what cannot be parked keeps nothing else from it.
        self._behind: dict[tuple[int, str], tuple[int, JobId]] = {}

    def park(self, lost: LostShares, now_ms: int, may_leave: MayLeave | None = None) -> int:
        """Park some of what is owed to lost pools, whenever it is due. Return how much that was.

        Args:
          lost: By pool whose jobs; None is everybody's.
          may_leave: None is all.
        """
        return sum(self._park_class(rank, lost, now_ms, may_leave) for rank in self._after)

    def _park_class(self, rank: int, lost: LostShares, now_ms: int, may_leave: MayLeave | None) -> int:
        lanes = self._store.read(owing_lanes, rank, self._after[rank], LANES)
        self._after[rank] = lanes[-1].name if len(lanes) == LANES else BEFORE_ALL
        theirs = [lane.name for lane in lanes if _is_lost(lane.name, lost)]
        size = max(1, JOBS // len(theirs)) if theirs else 0
        return sum(self._park_lane(rank, name, size, now_ms, may_leave) for name in theirs)

    def _park_lane(self, rank: int, lane: str, size: int, now_ms: int, may_leave: MayLeave | None) -> int:
        key = (rank, lane)
        owed = self._store.read(owed_in_lane, rank, lane, MAX_TIME_MS, size, self._behind.pop(key, None))
        pool, leaving = _pool_of(lane), {item.job_id for item in owed}
        if may_leave is not None:
            leaving &= set(may_leave(pool, sorted(leaving)))
        items = [
            OwedParking(item.job_id, item.dispatch, pool, now_ms) for item in owed if item.job_id in leaving
        ]
        answers = self._store.write_each(self._park, items)
        for item, answer in zip(items, answers, strict=True):
            if isinstance(answer, Exception):
                self._failed.fail(item.job_id, answer, now_ms, job=item.job_id)
        parked = sum(answer is True for answer in answers)
        if len(owed) == size and parked < size:
            self._behind[key] = (owed[-1].due_at, owed[-1].job_id)
        return parked


def _is_lost(lane: str, lost: LostShares) -> bool:
    pool, _, tenant = lane.partition(" ")
    tenants = lost.get(PoolName(pool), ())
    return tenants is None or tenant in tenants


def _pool_of(lane: str) -> PoolName:
    # No pool's name has a space.
    return PoolName(lane.partition(" ")[0])
