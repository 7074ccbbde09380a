"""Which pools have jobs that would be done much sooner in another: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from tether.discovery.fleet.pool_views import PoolView
from tether.ids import PoolName
from tether.scheduling.affinity import expected_times
from tether.scheduling.filters import PlacementRequest

PATIENCE_MS = 5_000
"""A pool is relieved once it has been crowded for so long without a gap."""

REST_MS = 3_000
"""After that it is left alone for so long: until then what was moved counts where it is."""

MAX_GAP_MS = 5_000
"""Two looks that lie further apart are not one watch."""


@dataclass(frozen=True)
class MoveRule:
    """When jobs are moved.

    Attributes:
      factor: How many times as long as the best other pool their own must take.
      gain_seconds: How much longer it must take beside that.
      moves: How often a job is handed over in vain at most; 0 moves none.
    """

    factor: float
    gain_seconds: float
    moves: int

    def is_worth_it(self, here_seconds: float, there_seconds: float) -> bool:
        """Whether a job that would be done here and there in so many seconds is to be moved."""
        return here_seconds > self.factor * there_seconds + self.gain_seconds


def crowded(
    request: PlacementRequest,
    pools: Sequence[PoolView],
    depths: Mapping[PoolName, int],
    shared: Mapping[PoolName, float],
    bounds: Mapping[PoolName, int],
    rule: MoveRule,
) -> dict[PoolName, int]:
    """The pools whose last jobs would be done much sooner in another one, and how many are to be moved.

    So many are moved until that is no longer so, which is before both take equally long: nothing goes back
    and forth. Only what waits is moved.

    Args:
      request: A job of the pools' model.
      pools: Those that can serve it.
      depths: Jobs in each pool that have not ended.
      shared: Jobs of other pools that the workers of each have.
      bounds: How many jobs each pool takes.
    """

    def seconds(pool: PoolView, more: int) -> float:
        ahead = depths.get(pool.name, 0) + more + shared.get(pool.name, 0.0)
        return expected_times(request, pool, ahead).seconds

    found: dict[PoolName, int] = {}
    if not rule.moves:
        return found
    sound = [pool for pool in pools if pool.sure > 0 and pool.able(None) > 0]
    for pool in pools:
        waiting = depths.get(pool.name, 0) - pool.slots
        others = [each for each in sound if each.name != pool.name]
        room = {each.name: bounds.get(each.name, 0) - depths.get(each.name, 0) for each in others}
        others = [each for each in others if room[each.name] > 0]
        if waiting <= 0 or not others:
            continue
        best = min(others, key=lambda each: (seconds(each, 0), each.name))
        low, high = 0, min(waiting, room[best.name])
        # The first of those that are moved finds the other pool as it is, and the last behind all of them.
        while low < high:
            middle = (low + high + 1) // 2
            if rule.is_worth_it(seconds(pool, -middle), seconds(best, middle - 1)):
                low = middle
            else:
                high = middle - 1
        if low:
            found[pool.name] = low
    return found


@dataclass(frozen=True)
class CrowdWatch:
    """Since when pools have been watched to be crowded, and until when those that were relieved are left
    alone; milliseconds of a monotonic clock."""

    at: int = 0
    since: Mapping[PoolName, int] = field(default_factory=lambda: MappingProxyType({}))
    rests_until: Mapping[PoolName, int] = field(default_factory=lambda: MappingProxyType({}))

    def look(self, now: Mapping[PoolName, int], at: int) -> tuple[CrowdWatch, dict[PoolName, int]]:
        """Watch on. Return also how many jobs are moved from which pool now.

        Args:
          now: What :func:`crowded` found.
          at: When, by the clock.
        """
        is_going_on = 0 <= at - self.at <= MAX_GAP_MS
        since = {name: self.since.get(name, at) if is_going_on else at for name in now}
        rests = {name: until for name, until in self.rests_until.items() if until > at}
        due = {
            name: count
            for name, count in now.items()
            if at - since[name] >= PATIENCE_MS and name not in rests
        }
        rests |= dict.fromkeys(due, at + REST_MS)
        return CrowdWatch(at, MappingProxyType(since), MappingProxyType(rests)), due
