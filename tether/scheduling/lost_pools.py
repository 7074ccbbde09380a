"""Whether a pool has lost its last worker that can do its jobs, so that what waits in it is given back: pure.

A worker lives by what Redis saw it do. That a pool is lost is a judgement over time, and not one look: a
worker that is started again is away for some seconds, and whoever judges may himself have been away. So time
counts only as far as it was watched without a gap, and while Redis could be asked for jobs.

All times are milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TypeVar

from tether.ids import PoolName, TenantId

MAX_GAP_MS = 5_000
"""Two looks that lie further apart are not one watch: workers may have come and gone in between."""

FIRST_PAUSE_MS = 5_000
"""What a job waits at least that has been given back :data:`FREE_HAND_OVERS` times; it doubles each time."""

MAX_PAUSE_MS = 60_000
"""No job waits longer for having been given back."""

FREE_HAND_OVERS = 2
"""A job is placed again at once that was handed over in vain this often, or less."""


_Watched = TypeVar("_Watched")


@dataclass(frozen=True)
class PoolPatience:
    """How long a pool must have been without any worker.

    Attributes:
      elsewhere_ms: Where another pool can serve its jobs now.
      nowhere_ms: Where none can: its jobs would only wait in the database instead.
      loading_ms: How long it may have workers of which none draws, where another pool has the model loaded.
      cold_ms: The same where another pool would have to load it first.
    """

    elsewhere_ms: int
    nowhere_ms: int
    loading_ms: int
    cold_ms: int


@dataclass(frozen=True, kw_only=True)
class PoolLook:
    """A pool with jobs, at one look.

    Attributes:
      workers: Live ones that draw from it, or could load its model.
      seen_ms: How long ago a worker was last seen to ask it for jobs, or to work for it, whether it announces
        itself or not; None where that was never seen, or is forgotten.
      is_served_elsewhere: Whether another pool can serve its jobs now.
      is_only_loading: Whether it has workers, heard of or not, of which none draws from it: they are loading
        its model, or say so.
      is_loaded_elsewhere: Whether another pool that can serve its jobs has the model loaded, and is drawn
        from.
      is_cold_elsewhere: Whether another pool that can serve its jobs could load the model, and has none that
        wait for that already.
      held_from: Tenants from whose jobs all its workers are held back, since they fail what others do, while
        another pool has workers that are not; None among them is everybody.
    """

    workers: int
    seen_ms: int | None = None
    is_served_elsewhere: bool = False
    is_only_loading: bool = False
    is_loaded_elsewhere: bool = False
    is_cold_elsewhere: bool = False
    held_from: frozenset[TenantId | None] = frozenset()


@dataclass(frozen=True, kw_only=True)
class FleetLook:
    """All pools with jobs, at one look.

    Attributes:
      at: When, by a monotonic clock.
      steady_ms: For how long Redis and the loop of leases have been there without a pause.
      pools: By name.
    """

    at: int
    steady_ms: int
    pools: Mapping[PoolName, PoolLook]


@dataclass(frozen=True)
class PoolWatch:
    """What was watched without a gap.

    Attributes:
      last: The last look; None where nothing could be seen.
      absent_since: Since when a pool with jobs has been watched to have no worker.
      loading_since: Since when one has been watched to have none but such as only load.
      held_since: Since when one has been watched to have none but such as are held back from a tenant's jobs.
    """

    last: FleetLook | None = None
    absent_since: Mapping[PoolName, int] = field(default_factory=lambda: MappingProxyType({}))
    loading_since: Mapping[PoolName, int] = field(default_factory=lambda: MappingProxyType({}))
    held_since: Mapping[tuple[PoolName, TenantId | None], int] = field(
        default_factory=lambda: MappingProxyType({})
    )


class PoolFate(StrEnum):
    """What is to become of the jobs that wait in a pool.

    Values:
      SERVED: It has a worker that draws, or may soon.
      PATIENCE: It has none that is known of; one may come back.
      LOST: It has none, or none that draws: its jobs are given back.
    """

    SERVED = "served"
    PATIENCE = "patience"
    LOST = "lost"


def watch_on(former: PoolWatch, look: FleetLook | None) -> PoolWatch:
    """The watch after a further look.

    Args:
      look: None where the fleet could not be seen: what was watched before counts no longer.
    """
    if look is None:
        return PoolWatch()
    is_going_on = former.last is not None and 0 <= look.at - former.last.at <= MAX_GAP_MS
    steady_since = look.at - look.steady_ms

    def since(known: Mapping[_Watched, int], now_so: Iterable[_Watched]) -> Mapping[_Watched, int]:
        before = known if is_going_on else {}
        return MappingProxyType({name: max(before.get(name, look.at), steady_since) for name in now_so})

    absent = (name for name, pool in look.pools.items() if pool.workers == 0)
    loading = (name for name, pool in look.pools.items() if pool.is_only_loading)
    held = ((name, tenant) for name, pool in look.pools.items() for tenant in pool.held_from)
    return PoolWatch(
        look,
        since(former.absent_since, absent),
        since(former.loading_since, loading),
        since(former.held_since, held),
    )


def fate_of(name: PoolName, watch: PoolWatch, patience: PoolPatience) -> PoolFate:
    """What is to become of the jobs that wait in a pool, as of the last look."""
    if watch.last is None:
        return PoolFate.PATIENCE
    pool = watch.last.pools.get(name)
    if pool is None:
        return PoolFate.SERVED
    if pool.is_only_loading and (pool.is_loaded_elsewhere or pool.is_cold_elsewhere):
        # A load may hang for ever, and who says that it loads may lie.
        loading_ms = watch.last.at - watch.loading_since[name]
        if loading_ms >= (patience.loading_ms if pool.is_loaded_elsewhere else patience.cold_ms):
            return PoolFate.LOST
    if pool.workers > 0:
        return PoolFate.SERVED
    absent_ms = watch.last.at - watch.absent_since[name]
    if pool.seen_ms is not None:
        absent_ms = min(absent_ms, pool.seen_ms)
    needed_ms = patience.elsewhere_ms if pool.is_served_elsewhere else patience.nowhere_ms
    return PoolFate.LOST if absent_ms >= needed_ms else PoolFate.PATIENCE


def lost_shares(watch: PoolWatch, patience: PoolPatience) -> dict[PoolName, frozenset[TenantId] | None]:
    """The pools whose waiting jobs are given back, as of the last look: those of these tenants; where it is
    None, everybody's."""
    lost: dict[PoolName, frozenset[TenantId] | None] = {
        name: None
        for name in {*watch.absent_since, *watch.loading_since}
        if fate_of(name, watch, patience) is PoolFate.LOST
    }
    if watch.last is not None:
        for (name, tenant), since in watch.held_since.items():
            share = lost.get(name, frozenset())
            if watch.last.at - since >= patience.elsewhere_ms and share is not None:
                lost[name] = None if tenant is None else share | {tenant}
    return lost


def pause_after(hand_overs: int) -> int:
    """For how long a job is parked that is given back, so that it does not go back and forth for ever between
    pools whose workers come and go.

    Args:
      hand_overs: How often it was handed over in vain, this time included: no attempt of it ended.
    """
    further = hand_overs - FREE_HAND_OVERS
    return 0 if further <= 0 else min(FIRST_PAUSE_MS << min(further - 1, 30), MAX_PAUSE_MS)
