"""The pools that the fleet makes: what the workers that draw from the same pool can do together."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from tether.discovery.announcements.presence import ModelState, Presence, Supported
from tether.discovery.fleet.fleet import SUSPECT_AFTER_INTERVALS, Fleet, silent_in
from tether.discovery.fleet.held_back import HeldBack
from tether.discovery.fleet.measured_rates import (
    MeasuredRates,
    ToldRates,
    bounded_sum,
    max_slots,
    slot_rate,
    with_those_of_the_like,
)
from tether.ids import PoolName, TenantId

FRESH_POOLS_MS = 100
"""How long the pools of an unchanged fleet are known: lives that end in between are noticed so late."""

SMALL_MS = 5
"""A fleet whose pools are added up sooner is small: every change of who serves what shows at once."""

REST = 20
"""Adding up again waits so many times as long as it took the last time: that is a twentieth of a core."""


@dataclass(frozen=True, eq=False)
class WorkerGroup:
    """Workers that draw from the same pools, of which there are several, and their slots together."""

    pools: tuple[PoolName, ...]
    slots: int


@dataclass(frozen=True, kw_only=True)
class PoolView:
    """One pool: what the workers that draw from it can do together.

    Attributes:
      name: The pool's.
      model, version, digest: What it serves.
      gpu_class, region: Where.
      workers: Live ones that take jobs, suspect ones among them.
      suspects: How many of them are suspect.
      silent: How many more announce the pool and do not draw from it. They count in nothing else.
      held: How many of the live ones are held back from everybody's jobs, since they fail what others do, or
        cannot load the model.
      unloadable: How many of these cannot load it.
      held_from: How many more are held back from a tenant's jobs, by tenant.
      may_try: Whether one of those that are held back would be given a job at once, to show what it can.
      slots, free: Sums over the workers, of which none counts with more than a few times their median.
      warm: Whether one of them has the model loaded.
      slot_tokens_per_second: Decoded by one busy slot: the median of the workers that know it; where none
        does, of the pools with this model on this GPU class; 0 where nobody does.
      prefill_tokens_per_second: Read of one prompt, in the same way.
      load_seconds: To load the model, in the same way.
      latency_hops: The least of the workers'.
      vram: Bytes of GPU memory of the worker that has the least, of those that say it; 0 where none does.
      queue_depth: Sum over the workers.
      groups: Those of its workers that draw from other pools too.
    """

    name: PoolName
    model: str
    version: str
    digest: str
    gpu_class: str
    region: str
    workers: int = 0
    suspects: int = 0
    silent: int = 0
    held: int = 0
    unloadable: int = 0
    held_from: Mapping[TenantId, int] = field(default_factory=lambda: MappingProxyType({}))
    may_try: bool = False
    slots: int = 0
    free: int = 0
    warm: bool = False
    slot_tokens_per_second: float = 0.0
    prefill_tokens_per_second: float = 0.0
    load_seconds: float = 0.0
    latency_hops: int = 0
    vram: int = 0
    queue_depth: int = 0
    groups: tuple[WorkerGroup, ...] = ()

    @property
    def sure(self) -> int:
        """Workers that are not suspect."""
        return self.workers - self.suspects

    def able(self, tenant: TenantId | None) -> int:
        """Workers that are not held back from a tenant's jobs; None asks for everybody's."""
        return self.workers - self.held - (self.held_from.get(tenant, 0) if tenant is not None else 0)


def pools(fleet: Fleet, now: int) -> tuple[PoolView, ...]:
    """The pools that live workers announce, by name. Workers that drain or are unroutable do not count."""
    suspect_from = now - SUSPECT_AFTER_INTERVALS * fleet.interval_ms
    unroutable = fleet.unroutable
    sums: dict[PoolName, _Sum] = {}
    shared: list[tuple[tuple[PoolName, ...], int]] = []
    for worker, member in fleet.members.items():
        if member.expires_at <= now or worker in unroutable:
            continue
        presence, silent_there = member.presence, silent_in(member, fleet.silent)
        drawn_from = tuple(name for name, _ in member.serves if name not in silent_there)
        if len(drawn_from) > 1:
            shared.append((drawn_from, presence.slots))
        rate, prefill = slot_rate(presence), presence.prefill_tokens_per_second
        for name, model in member.serves:
            total = sums.get(name)
            if total is None:
                total = sums[name] = _Sum(name, model, presence)
            if name in silent_there:
                total.silent += 1
                continue
            if not total.workers:
                total.latency_hops, total.vram = presence.latency_hops, presence.vram_total
            total.workers += 1
            total.suspects += member.renewed_at <= suspect_from
            if worker in fleet.held and name in fleet.held[worker]:
                total.add_held(fleet.held[worker][name])
            total.slots.append(presence.slots)
            total.free.append(presence.free)
            if rate:
                total.told.slot_rates.append(rate)
            if prefill:
                total.told.prefill_rates.append(prefill)
            if model.load_seconds:
                total.told.load_seconds.append(model.load_seconds)
            total.warm = total.warm or model.state is ModelState.WARM
            total.queue_depth += presence.queue_depth
            if presence.latency_hops < total.latency_hops:
                total.latency_hops = presence.latency_hops
            # A worker that has not touched its GPU yet knows nothing of it.
            if presence.vram_total and not 0 < total.vram <= presence.vram_total:
                total.vram = presence.vram_total
    # Mostly there are none, and those of all workers need not be looked through.
    bounding = [total for total in sums.values() if total.bounds_slots()]
    slots_by_pools: Counter[tuple[PoolName, ...]] = Counter()
    for names, slots in shared:
        if bounding:
            slots = min(slots, *(sums[name].max_slots for name in names))
        slots_by_pools[names] += slots
    for names, slots in slots_by_pools.items():
        group = WorkerGroup(names, slots)
        for name in names:
            sums[name].groups.append(group)
    measured = with_those_of_the_like(
        {name: total.told.medians() for name, total in sums.items()},
        {name: (total.model.digest, total.first.gpu_class) for name, total in sums.items()},
    )
    return tuple(sums[name].view(measured[name]) for name in sorted(sums))


class _Sum:
    """A pool view while it is added up."""

    __slots__ = (
        *(
            "first",
            "free",
            "groups",
            "held",
            "held_from",
            "latency_hops",
            "max_slots",
            "may_try",
            "model",
            "name",
            "queue_depth",
        ),
        "silent",
        *("slots", "suspects", "told", "unloadable", "vram", "warm", "workers"),
    )

    def __init__(self, name: PoolName, model: Supported, first: Presence) -> None:
        self.name = name
        self.model = model
        self.first = first
        self.workers = self.suspects = self.silent = self.queue_depth = 0
        self.held = self.unloadable = self.vram = self.max_slots = 0
        self.slots: list[int] = []
        self.free: list[int] = []
        self.told = ToldRates()
        self.held_from: Counter[TenantId] = Counter()
        self.groups: list[WorkerGroup] = []
        self.warm = self.may_try = False
        self.latency_hops = first.latency_hops

    def add_held(self, held: HeldBack) -> None:
        self.may_try = self.may_try or held.may_try
        if held.is_for_all:
            self.held += 1
            self.unloadable += held.cannot_load
        else:
            self.held_from.update(held.tenants)

    def bounds_slots(self) -> bool:
        """Set with how many slots a worker counts at most. Return whether one says that it has more."""
        self.max_slots = max_slots(self.slots)
        return max(self.slots, default=0) > self.max_slots

    def view(self, measured: MeasuredRates) -> PoolView:
        return PoolView(
            name=self.name,
            model=self.model.name,
            version=self.model.version,
            digest=self.model.digest,
            gpu_class=self.first.gpu_class,
            region=self.first.region,
            workers=self.workers,
            suspects=self.suspects,
            silent=self.silent,
            held=self.held,
            unloadable=self.unloadable,
            held_from=MappingProxyType(dict(self.held_from)),
            may_try=self.may_try,
            slots=bounded_sum(self.slots, self.max_slots),
            free=bounded_sum(self.free, self.max_slots),
            warm=self.warm,
            slot_tokens_per_second=measured.slot_tokens_per_second,
            prefill_tokens_per_second=measured.prefill_tokens_per_second,
            load_seconds=measured.load_seconds,
            latency_hops=self.latency_hops,
            vram=self.vram,
            queue_depth=self.queue_depth,
            groups=tuple(self.groups),
        )


class _Known(NamedTuple):
    fleet: Fleet
    at: int
    took_ms: float
    views: tuple[PoolView, ...]


class PoolViews:
    """The pools of a fleet that changes all the time, added up no oftener than it helps.

    Safe to use from many threads.
    """

    def __init__(self, clock: Callable[[], int], stopwatch: Callable[[], float] = time.thread_time) -> None:
        """
        Args:
          clock: Milliseconds, of the clock that the fleet's times are of.
          stopwatch: Seconds; measures what adding up costs the processor.
        """
        self._clock = clock
        self._stopwatch = stopwatch
        self._lock = threading.Lock()
        self._known: _Known | None = None

    def of(self, fleet: Fleet) -> tuple[PoolView, ...]:
        """Return the pools, as :func:`pools` would, or as they were shortly before.

        A pool that is new or has no workers any more shows immediately, and so does, in a small fleet, every
        change of served models.
        """
        with self._lock:
            now, known = self._clock(), self._known
            if known is None or _is_due(known, fleet, now):
                begun = self._stopwatch()
                views = pools(fleet, now)
                known = self._known = _Known(fleet, now, (self._stopwatch() - begun) * 1000, views)
            return known.views


def _is_due(known: _Known, fleet: Fleet, now: int) -> bool:
    age, rest = now - known.at, REST * known.took_ms
    if fleet.served is not known.fleet.served:
        if known.took_ms < SMALL_MS or fleet.served.keys() != known.fleet.served.keys():
            return True
    elif fleet is known.fleet:
        return age >= max(FRESH_POOLS_MS, rest)
    return age >= rest
