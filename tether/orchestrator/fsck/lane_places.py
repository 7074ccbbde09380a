"""Whether waiting jobs stand in their lanes: looked for where the last were found, else in the whole lane."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import redis

from tether.broker.redis.connections import each_answer
from tether.ids import JobId

AROUND = 1_000
"""Entries of a lane that are read before and behind the place where the last ones were found."""


class LaneEntry(NamedTuple):
    """What stands in a lane for a job that waits.

    Attributes:
      lanes: Keys of the lanes that may have it, the likeliest first.
    """

    job_id: JobId
    lanes: tuple[str, ...]
    entry: str


class LanePlaces:
    """Finds entries of lanes.

    To look for each in its whole lane would take Redis a time that grows with the square of the lane's
    length. Jobs are asked for in the order in which most of them wait.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client: Any = client
        self._places: dict[str, int] = {}

    def standing(self, wanted: Iterable[LaneEntry]) -> set[JobId]:
        """Those of these jobs whose entries stand in one of their lanes."""
        found: set[JobId] = set()
        by_lane: dict[str, dict[bytes, JobId]] = defaultdict(dict)
        wanted = list(wanted)
        for each in wanted:
            by_lane[each.lanes[0]][each.entry.encode()] = each.job_id
        pipeline = self._client.pipeline(transaction=False)
        firsts = [max(0, self._places.get(lane, 0) - AROUND) for lane in by_lane]
        for lane, first in zip(by_lane, firsts, strict=True):
            pipeline.lrange(lane, first, first + 2 * AROUND - 1)
        for lane, first, entries in zip(by_lane, firsts, each_answer(pipeline), strict=True):
            for place, entry in enumerate(entries if isinstance(entries, list) else (), first):
                if (job_id := by_lane[lane].get(entry)) is not None:
                    found.add(job_id)
                    self._places[lane] = place
        return found | self._in_whole_lanes([each for each in wanted if each.job_id not in found])

    def _in_whole_lanes(self, wanted: list[LaneEntry]) -> set[JobId]:
        pipeline = self._client.pipeline(transaction=False)
        asked = [(each, lane) for each in wanted for lane in each.lanes]
        for each, lane in asked:
            pipeline.lpos(lane, each.entry)
        found: set[JobId] = set()
        for (each, lane), place in zip(asked, each_answer(pipeline), strict=True):
            if isinstance(place, int):
                found.add(each.job_id)
                self._places[lane] = place
        return found
