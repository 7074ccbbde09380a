"""Reads the beginnings of a class's lanes, in turn, as far as they have room in Redis."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tether.broker.pools.pools import Pools
from tether.broker.pools.waiting_lanes import LaneKey, LaneLoad
from tether.ids import JobId, PoolName, TenantId
from tether.jobs import Priority
from tether.orchestrator.outbox_order import LaneHead, OwedChoice, has_few, lane_use
from tether.store.outbox import BEFORE_ALL, RANKS, Lane, owed_in_lane, owing_lanes
from tether.store.store import Store

LANES = 64
"""Lanes that are read at once."""

MIN_HEAD = 4
"""Least number of hand-overs that are read of a lane."""

MAX_IDLE_LANES = 1_024
"""Lanes without anything that can be placed that are looked at without a pause."""

REFILL_SHARE = 0.9
"""A lane is left alone while it uses more than this share of its bytes."""


class LaneReader:
    """Reads lanes of one class, and remembers where to go on. One thread uses it."""

    def __init__(self, store: Store, pools: Pools, priority: Priority) -> None:
        self._store = store
        self._pools = pools
        self._priority = priority
        self._rank = RANKS[priority]
        self._after = BEFORE_ALL
        self._page: list[Lane] = []
        self._idle_lanes = 0
        self._heads: list[LaneHead] = []
        # Where the next page of a lane begins: rows that cannot even be delayed do not block the others.
        self._behind: dict[str, tuple[int, JobId]] = {}

    @property
    def owe_something(self) -> bool:
        """Whether there was any lane at the last reading."""
        return bool(self._page)

    def read(self, now_ms: int, limit: int, *, has_room: bool) -> Sequence[LaneHead]:
        """The beginnings of the next lanes that have something due and are not full.

        Args:
          limit: How many hand-overs can be placed at most.
          has_room: Whether Redis has room for this class. Without it, only lanes are read of which few jobs
            wait there.
        """
        self._page = self._next_page()
        due = [lane.name for lane in self._page if lane.due_at <= now_ms]
        loads = dict(zip(due, self._loads(due), strict=True))
        open_lanes = [name for name in due if self._is_open(loads[name], has_room)]
        size = max(MIN_HEAD, limit // max(len(open_lanes), 1))
        self._heads = [self._head(name, loads[name], now_ms, size) for name in open_lanes]
        return self._heads

    def note(self, choice: OwedChoice, *, refused: Collection[JobId], stuck: Collection[JobId]) -> bool:
        """What came of the last reading.

        Args:
          refused: Of what was chosen that for which its lane had no room after all.
          stuck: Of what was chosen that which can neither be placed nor delayed.

        Returns:
          Whether there may be more that can be placed at once.
        """
        chosen = {item.job_id for item in choice.owed}
        steps_over = False
        for head in self._heads:
            of_lane = [item for item in head.owed if item.job_id in chosen]
            if any(item.job_id in stuck for item in of_lane):
                self._behind[head.name] = (of_lane[-1].due_at, of_lane[-1].job_id)
                steps_over = True
            elif len(of_lane) == len(head.owed):
                self._behind.pop(head.name, None)
        is_whole = len(self._page) == LANES
        self._after = choice.last_lane or (self._page[-1].name if is_whole else BEFORE_ALL)
        if len(chosen) > len(refused) + len(stuck):
            self._idle_lanes = 0
            return True
        self._idle_lanes += len(self._page)
        if steps_over or (is_whole and self._idle_lanes < MAX_IDLE_LANES):
            return True
        self._idle_lanes = 0
        return False

    def _next_page(self) -> list[Lane]:
        page = self._store.read(owing_lanes, self._rank, self._after, LANES)
        if len(page) < LANES and self._after != BEFORE_ALL:
            names = {lane.name for lane in page}
            first = self._store.read(owing_lanes, self._rank, BEFORE_ALL, LANES - len(page))
            page += [lane for lane in first if lane.name not in names]
        return page

    def _loads(self, names: Sequence[str]) -> list[LaneLoad]:
        if not names:
            return []
        if self._priority is not Priority.BATCH:
            return self._pools.waiting([_lane_key(name, self._priority) for name in names])
        # What has waited for long stands among the standard jobs, and uses bytes of its lane there. It does
        # not count among the few: a batch job must be in Redis to move up.
        classes = (Priority.BATCH, Priority.STANDARD)
        found = self._pools.waiting([_lane_key(name, each) for name in names for each in classes])
        return [
            LaneLoad(young.jobs, young.body_bytes + lane_use(old))
            for young, old in zip(found[::2], found[1::2], strict=True)
        ]

    def _is_open(self, load: LaneLoad, has_room: bool) -> bool:
        return has_few(load) or (has_room and lane_use(load) <= REFILL_SHARE * self._pools.room.lane_bytes)

    def _head(self, name: str, load: LaneLoad, now_ms: int, size: int) -> LaneHead:
        after = self._behind.get(name)
        return LaneHead(name, load, self._store.read(owed_in_lane, self._rank, name, now_ms, size, after))


def _lane_key(name: str, priority: Priority) -> LaneKey:
    pool, _, tenant = name.partition(" ")
    return LaneKey(PoolName(pool), priority, TenantId(tenant))
