"""Which hand-overs are placed next: in turn by lane, as far as lanes and Redis have room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tether.broker.pools.room import FEW_JOBS, LANE_JOB_BYTES, bytes_in_redis
from tether.broker.pools.waiting_lanes import LaneLoad
from tether.store.outbox import OwedDispatch


@dataclass(frozen=True)
class LaneHead:
    """The beginning of a lane.

    Attributes:
      name: Its name in the outbox.
      load: What waits of it in Redis already.
      owed: What is due, the longest due first.
    """

    name: str
    load: LaneLoad
    owed: Sequence[OwedDispatch]


@dataclass(frozen=True)
class OwedChoice:
    """What is placed now.

    Attributes:
      owed: In the order in which it is placed.
      last_lane: The last lane that got something; None where none did. The next choice begins behind it.
    """

    owed: tuple[OwedDispatch, ...]
    last_lane: str | None


def has_few(load: LaneLoad) -> bool:
    """Whether a lane gets the next job whatever else is in Redis."""
    return load.jobs < FEW_JOBS


def lane_use(load: LaneLoad) -> int:
    """Bytes of its own that a lane uses in Redis."""
    return load.body_bytes + load.jobs * LANE_JOB_BYTES


def choose_owed(
    lanes: Sequence[LaneHead], *, room: float, room_for_few: float, limit: int, lane_bytes: int
) -> OwedChoice:
    """Choose from the beginnings of lanes: one of each in turn, and never a later one before an earlier one.

    The last one may be larger than what is left of the room, or of its lane's bytes: otherwise large ones
    would wait for ever beside small ones.

    Args:
      room: Bytes that may be taken in Redis.
      room_for_few: Bytes that lanes may take of which few jobs wait there.
      limit: How many are chosen at most.
      lane_bytes: Bytes of a lane that may wait in Redis.
    """
    chosen: list[OwedDispatch] = []
    last_lane = None
    open_lanes = [(lane, lane.load, iter(lane.owed)) for lane in lanes]
    while open_lanes and len(chosen) < limit:
        still_open = []
        for lane, load, owed_next in open_lanes:
            is_few = has_few(load)
            fits = room > 0 and (is_few or lane_use(load) < lane_bytes)
            if len(chosen) == limit or not (fits or (is_few and room_for_few > 0)):
                continue
            owed = next(owed_next, None)
            if owed is None:
                continue
            chosen.append(owed)
            last_lane = lane.name
            taken = bytes_in_redis(owed.body_bytes)
            room, room_for_few = room - taken, room_for_few - taken
            grown = LaneLoad(load.jobs + 1, load.body_bytes + max(owed.body_bytes, 0))
            still_open.append((lane, grown, owed_next))
        open_lanes = still_open
    return OwedChoice(tuple(chosen), last_lane)
