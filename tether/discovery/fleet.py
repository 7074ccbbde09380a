"""The fleet as an immutable value, and what announcements and time make of it: pure.

Times are milliseconds of one monotonic clock, the reader's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from tether.discovery.wire import ModelState, Order, Presence, Supported, WorkerState
from tether.scheduling.models import pool_name

SUSPECT_AFTER_INTERVALS = 1.5
"""Intervals without an announcement after which a worker is chosen only where nothing else can serve."""


@dataclass(frozen=True)
class Member:
    """A worker, as last heard of.

    Attributes:
      presence: Its newest announcement.
      first_seen: When this reader first heard of it.
      renewed_at: When the newest announcement was made, as far as the reader can tell.
      expires_at: When it no longer counts.
    """

    presence: Presence
    first_seen: int
    renewed_at: int
    expires_at: int


def _nothing() -> Mapping[str, Order]:
    return MappingProxyType({})


@dataclass(frozen=True)
class Fleet:
    """All workers that were heard of.

    Attributes:
      interval_ms: Time between two announcements of a worker.
      expiry_ms: Silence after which it no longer counts.
      members: Those that live, by worker id.
      newest: The newest order heard of each worker, also of those that are gone: no older announcement brings
        one back. It grows with the number of trusted keys, no further.
      unroutable: The order up to which a worker's announcements do not make it routable.
    """

    interval_ms: int = 5_000
    expiry_ms: int = 15_000
    members: Mapping[str, Member] = field(default_factory=lambda: MappingProxyType({}))
    newest: Mapping[str, Order] = field(default_factory=_nothing)
    unroutable: Mapping[str, Order] = field(default_factory=_nothing)


def apply(fleet: Fleet, presence: Presence, now: int, life_ms: int | None = None) -> Fleet:
    """The fleet after an announcement. One that is not strictly newer changes nothing.

    Args:
      life_ms: What is left of its life, where it did not come straight from the worker.
    """
    worker = presence.worker_id
    if worker in fleet.newest and presence.order <= fleet.newest[worker]:
        return fleet
    newest = MappingProxyType({**fleet.newest, worker: presence.order})
    unroutable = _without(fleet.unroutable, worker)
    members = dict(fleet.members)
    former = members.pop(worker, None)
    life = fleet.expiry_ms if life_ms is None else min(life_ms, fleet.expiry_ms)
    if presence.state is not WorkerState.STOPPED and life > 0:
        members[worker] = Member(
            presence=presence,
            first_seen=former.first_seen if former else now,
            renewed_at=now - (fleet.expiry_ms - life),
            expires_at=now + life,
        )
    return replace(fleet, members=MappingProxyType(members), newest=newest, unroutable=unroutable)


def expire(fleet: Fleet, now: int) -> Fleet:
    """The fleet without those whose life has ended."""
    members = {worker: member for worker, member in fleet.members.items() if member.expires_at > now}
    if len(members) == len(fleet.members):
        return fleet
    return replace(fleet, members=MappingProxyType(members))


def unroutable(fleet: Fleet, boot_id: str) -> Fleet:
    """The fleet in which nothing is sent to a worker until it is heard of again.

    Args:
      boot_id: The worker's boot id. Where a newer process of that worker is there already, nothing changes.
    """
    worker, _, counter = boot_id.partition(".")
    member = fleet.members.get(worker)
    if member is None or (counter.isdigit() and int(counter) < member.presence.boot_counter):
        return fleet
    return replace(fleet, unroutable=MappingProxyType({**fleet.unroutable, worker: member.presence.order}))


def is_suspect(fleet: Fleet, member: Member, now: int) -> bool:
    """Whether a worker has missed so much that it may be gone."""
    return now - member.renewed_at >= SUSPECT_AFTER_INTERVALS * fleet.interval_ms


@dataclass(frozen=True, kw_only=True)
class PoolView:
    """One pool: what the workers that draw from it can do together.

    Attributes:
      name: The pool's.
      model, version, digest: What it serves.
      gpu_class, region: Where.
      workers: Live ones that take jobs, suspect ones among them.
      suspects: How many of them are suspect.
      slots, free: Sums over the workers.
      warm: Whether one of them has the model loaded.
      tokens_per_second: Sum over the workers. One that draws from several pools counts in each.
      latency_hops: The least of the workers'.
      queue_depth: Sum over the workers.
    """

    name: str
    model: str
    version: str
    digest: str
    gpu_class: str
    region: str
    workers: int = 0
    suspects: int = 0
    slots: int = 0
    free: int = 0
    warm: bool = False
    tokens_per_second: float = 0.0
    latency_hops: int = 0
    queue_depth: int = 0

    @property
    def sure(self) -> int:
        """Workers that are not suspect."""
        return self.workers - self.suspects


def pools(fleet: Fleet, now: int) -> tuple[PoolView, ...]:
    """The pools that live workers draw from, by name. Workers that drain or are unroutable do not count."""
    found: dict[str, PoolView] = {}
    for worker, member in sorted(fleet.members.items()):
        accepts = member.presence.state is WorkerState.SERVING and worker not in fleet.unroutable
        if not accepts or member.expires_at <= now:
            continue
        suspect = is_suspect(fleet, member, now)
        for name, model in _served(member.presence).items():
            found[name] = _with_worker(found.get(name), name, model, member.presence, suspect)
    return tuple(found[name] for name in sorted(found))


def _served(presence: Presence) -> dict[str, Supported]:
    named = {pool_name(presence.gpu_class, presence.region, model): model for model in presence.supported}
    return {name: named[name] for name in presence.pools if name in named}


def _with_worker(
    pool: PoolView | None, name: str, model: Supported, presence: Presence, suspect: bool
) -> PoolView:
    hops = presence.latency_hops
    if pool is None:
        pool = PoolView(
            name=name,
            model=model.name,
            version=model.version,
            digest=model.digest,
            gpu_class=presence.gpu_class,
            region=presence.region,
            latency_hops=hops,
        )
    return replace(
        pool,
        workers=pool.workers + 1,
        suspects=pool.suspects + suspect,
        slots=pool.slots + presence.slots,
        free=pool.free + presence.free,
        warm=pool.warm or model.state is ModelState.WARM,
        tokens_per_second=pool.tokens_per_second + presence.tokens_per_second,
        latency_hops=min(pool.latency_hops, hops),
        queue_depth=pool.queue_depth + presence.queue_depth,
    )


def _without(orders: Mapping[str, Order], worker: str) -> Mapping[str, Order]:
    if worker not in orders:
        return orders
    return MappingProxyType({other: order for other, order in orders.items() if other != worker})
