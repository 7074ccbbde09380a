"""The fleet as an immutable value, and pure functions that apply announcements and time to it.

Times are milliseconds of one monotonic clock, the reader's own. Announcements come in batches: the mappings
are copied once a batch, so that an announcement's cost does not grow with the fleet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeAlias

from tether.discovery.announcements.presence import ModelState, Order, Presence, Supported, WorkerState
from tether.discovery.fleet.announced_parts import further_part, with_known_parts
from tether.discovery.fleet.held_back import Held, HeldBack
from tether.ids import BootId, PoolName, WorkerId, worker_of
from tether.models.registry import pool_name

SUSPECT_AFTER_INTERVALS = 1.5
"""Intervals without an announcement after which a worker is chosen only if no other can serve."""

NEVER = 2**63 - 1
"""A time that does not come."""

_NO_POOLS: frozenset[PoolName] = frozenset()

Serves: TypeAlias = tuple[tuple[PoolName, Supported], ...]
"""Names of pools, each with the model that is served there."""

Silent: TypeAlias = Mapping[WorkerId, frozenset[PoolName]]
"""By worker id the pools that it announces and does not draw from."""


@dataclass(frozen=True, slots=True)
class Member:
    """A worker, by its newest announcement.

    Attributes:
      presence: Its newest announcement.
      first_seen: When this reader first received one.
      renewed_at: When the newest announcement was issued, as far as the reader can tell.
      expires_at: When it expires.
      serves: The pools that it says it takes jobs from; none while it drains.
    """

    presence: Presence
    first_seen: int
    renewed_at: int
    expires_at: int
    serves: Serves = ()


def _no_members() -> MappingProxyType[WorkerId, Member]:
    return MappingProxyType({})


def _no_orders() -> MappingProxyType[WorkerId, Order]:
    return MappingProxyType({})


def _nobody_silent() -> Silent:
    return MappingProxyType({})


def _nobody_held() -> Held:
    return MappingProxyType({})


def _no_pools() -> MappingProxyType[PoolName, int]:
    return MappingProxyType({})


@dataclass(frozen=True)
class Fleet:
    """All known workers.

    Attributes:
      interval_ms: Time between two announcements of a worker.
      expiry_ms: Time without an announcement after which it expires.
      members: Live workers, by worker id.
      newest: The newest known order of each worker, also of those that are gone: no older announcement brings
        one back. Its size is bounded by the number of trusted keys.
      unroutable: The order up to which a worker's announcements do not make it routable.
      silent: The pools that members announce and do not draw from, by what was last seen of them.
      held: Who is held back from pools, since it fails what others do, or cannot load their models.
      served: How many members serve each pool, by its name. It stays the same object as long as no member
        joins, leaves, becomes unroutable or silent, or serves something else.
      next_expiry: No member expires before.
    """

    interval_ms: int = 5_000
    expiry_ms: int = 15_000
    members: MappingProxyType[WorkerId, Member] = field(default_factory=_no_members)
    newest: MappingProxyType[WorkerId, Order] = field(default_factory=_no_orders)
    unroutable: MappingProxyType[WorkerId, Order] = field(default_factory=_no_orders)
    silent: Silent = field(default_factory=_nobody_silent)
    held: Held = field(default_factory=_nobody_held)
    served: MappingProxyType[PoolName, int] = field(default_factory=_no_pools)
    next_expiry: int = NEVER


def apply_all(
    fleet: Fleet, heard: Iterable[tuple[Presence, int | None]], now: int
) -> tuple[Fleet, tuple[int, ...]]:
    """Return the fleet after announcements, in order, and the positions of the accepted ones.

    Those of one round on several models' topics add up; the first of them renews the worker's life.

    Args:
      heard: Each with its remaining TTL, or None if it came directly from the worker.
    """
    orders: dict[WorkerId, Order] = {}
    changed: dict[WorkerId, Member | None] = {}
    counted: list[int] = []
    for position, (presence, life_ms) in enumerate(heard):
        worker = presence.worker_id
        order = presence.order
        known = orders.get(worker) or fleet.newest.get(worker)
        former = changed[worker] if worker in changed else fleet.members.get(worker)
        if known is not None and order <= known:
            more = further_part(former.presence, presence) if former is not None else None
            if former is not None and more is not None:
                counted.append(position)
                changed[worker] = replace(former, presence=more, serves=_serves(former, more))
            continue
        counted.append(position)
        orders[worker] = order
        whole = with_known_parts(former.presence if former is not None else None, presence)
        changed[worker] = _member(fleet, former, whole, life_ms, now)
    if not counted:
        return fleet, ()
    newest = fleet.newest.copy()
    newest.update(orders)
    members = fleet.members.copy()
    next_expiry = fleet.next_expiry
    for worker, member in changed.items():
        if member is None:
            members.pop(worker, None)
        else:
            members[worker] = member
            next_expiry = min(next_expiry, member.expires_at)
    unroutable = _lifted(fleet.unroutable, orders)
    before = [(worker, fleet.members.get(worker)) for worker in changed]
    return (
        replace(
            fleet,
            members=MappingProxyType(members),
            newest=MappingProxyType(newest),
            unroutable=unroutable,
            served=_served(fleet, before, changed.items(), unroutable=unroutable),
            next_expiry=next_expiry,
        ),
        tuple(counted),
    )


def expire(fleet: Fleet, now: int) -> Fleet:
    """Return the fleet without expired members."""
    if now < fleet.next_expiry:
        return fleet
    members = {worker: member for worker, member in fleet.members.items() if member.expires_at > now}
    next_expiry = min((member.expires_at for member in members.values()), default=NEVER)
    gone = [(worker, member) for worker, member in fleet.members.items() if worker not in members]
    if not gone:
        return replace(fleet, next_expiry=next_expiry)
    served = _served(fleet, gone, ())
    return replace(fleet, members=MappingProxyType(members), served=served, next_expiry=next_expiry)


def unroutable(fleet: Fleet, boot_id: BootId) -> Fleet:
    """Return the fleet in which a worker is unroutable until its next announcement.

    Args:
      boot_id: The worker's boot id. If a newer process of that worker is known, nothing changes.
    """
    worker_id, counter = worker_of(boot_id), boot_id.partition(".")[2]
    member = fleet.members.get(worker_id)
    if member is None or (counter.isdigit() and int(counter) < member.presence.boot_counter):
        return fleet
    return unroutable_up_to(fleet, worker_id, member.presence.order)


def unroutable_up_to(fleet: Fleet, worker_id: WorkerId, order: Order) -> Fleet:
    """Return the fleet in which a worker is unroutable until an announcement newer than ``order``.

    If there already was one, nothing changes. The worker need not be known yet.
    """
    newest, marked = fleet.newest.get(worker_id), fleet.unroutable.get(worker_id)
    if (newest is not None and newest > order) or (marked is not None and marked >= order):
        return fleet
    marks = MappingProxyType({**fleet.unroutable, worker_id: order})
    member = [(worker_id, fleet.members.get(worker_id))]
    served = _served(fleet, member, member, unroutable=marks)
    return replace(fleet, unroutable=marks, served=served)


def only(fleet: Fleet, keep: Callable[[Presence], bool]) -> Fleet:
    """Return the fleet with only the members to keep. The newest orders of the others stay known."""
    gone = [(worker, member) for worker, member in fleet.members.items() if not keep(member.presence)]
    if not gone:
        return fleet
    members = fleet.members.copy()
    for worker, _ in gone:
        del members[worker]
    served = _served(fleet, gone, ())
    return replace(fleet, members=MappingProxyType(members), served=served)


def without_older(fleet: Fleet, orders: Mapping[WorkerId, Order]) -> Fleet:
    """Return the fleet without the members that are known by announcements older than these orders."""

    def stays(presence: Presence) -> bool:
        order = orders.get(presence.worker_id)
        return order is None or order <= presence.order

    return only(fleet, stays) if any(worker in fleet.members for worker in orders) else fleet


def is_contested(member: Member, presence: Presence) -> bool:
    """Return whether an announcement that is not newer than a member's newest shows that two processes use
    the same key.

    A single process gives its announcements unique, increasing numbers.
    """
    known = member.presence
    if presence.boot_counter != known.boot_counter:
        return False
    if presence.sequence == known.sequence:
        return presence.nonce != known.nonce
    return presence.sequence < known.sequence and presence.issued_at > known.issued_at


def judged(fleet: Fleet, silent: Silent, held: Held = MappingProxyType({})) -> Fleet:
    """Return the fleet of which these workers, and no others, were seen not to draw from these pools, or are
    held back."""
    if silent == fleet.silent and held == fleet.held:
        return fleet
    members = [(worker, fleet.members.get(worker)) for worker in {*silent, *fleet.silent}]
    served = _served(fleet, members, members, silent=silent)
    return replace(fleet, silent=silent, held=held, served=served)


def held_or_failing(
    members: Mapping[WorkerId, Member], held: Held, without_hope: Mapping[WorkerId, Mapping[str, bool]]
) -> Held:
    """Who is held back from pools, and who cannot load their models: that is held back from everybody's jobs.

    Args:
      without_hope: See :class:`~tether.discovery.fleet.liveness.Evidence`.
    """
    found = dict(held)
    for worker, models in without_hope.items():
        member = members.get(worker)
        failing = {
            pool: HeldBack(tenants=frozenset(), is_for_all=True, may_try=models[name], cannot_load=True)
            for pool, model in (() if member is None else member.serves)
            if (name := f"{model.name}@{model.version}") in models and model.state is not ModelState.WARM
        }
        if failing:
            found[worker] = {**found.get(worker, {}), **failing}
    return found


def silent_in(member: Member, silent: Silent) -> frozenset[PoolName]:
    """The pools that a worker announces and does not draw from."""
    if member.presence.state is WorkerState.DISCONNECTED:
        return frozenset(name for name, _ in member.serves)
    return silent.get(member.presence.worker_id, _NO_POOLS)


def is_suspect(fleet: Fleet, member: Member, now: int) -> bool:
    """Whether a worker has missed so much that it may be gone."""
    return now - member.renewed_at >= SUSPECT_AFTER_INTERVALS * fleet.interval_ms


def _member(
    fleet: Fleet, former: Member | None, presence: Presence, life_ms: int | None, now: int
) -> Member | None:
    life = fleet.expiry_ms if life_ms is None else min(life_ms, fleet.expiry_ms)
    if presence.state is WorkerState.STOPPED or life <= 0:
        return None
    return Member(
        presence=presence,
        first_seen=former.first_seen if former else now,
        renewed_at=now - (fleet.expiry_ms - life),
        expires_at=now + life,
        serves=_serves(former, presence),
    )


def _serves(former: Member | None, presence: Presence) -> Serves:
    # Most announcements say again what the worker serves; to name its pools anew costs more than to compare.
    if former is not None and _offer(former.presence) == _offer(presence):
        return former.serves
    if presence.state not in (WorkerState.SERVING, WorkerState.DISCONNECTED):
        return ()
    named = {pool_name(presence.gpu_class, presence.region, model): model for model in presence.supported}
    return tuple((name, named[name]) for name in dict.fromkeys(presence.pools) if name in named)


def _offer(presence: Presence) -> tuple[object, ...]:
    return (presence.state, presence.pools, presence.supported, presence.gpu_class, presence.region)


def _lifted(
    marks: MappingProxyType[WorkerId, Order], orders: Mapping[WorkerId, Order]
) -> MappingProxyType[WorkerId, Order]:
    lifted = {worker for worker in marks.keys() & orders.keys() if orders[worker] > marks[worker]}
    if not lifted:
        return marks
    return MappingProxyType({worker: order for worker, order in marks.items() if worker not in lifted})


def _served(
    fleet: Fleet,
    before: Iterable[tuple[WorkerId, Member | None]],
    after: Iterable[tuple[WorkerId, Member | None]],
    *,
    unroutable: Mapping[WorkerId, Order] | None = None,
    silent: Silent | None = None,
) -> MappingProxyType[PoolName, int]:
    """The counts after some members, all of them in ``before``, have become what is in ``after``.

    Args:
      unroutable, silent: Those of the fleet afterwards, where they change.
    """
    former = _routable(before, fleet.unroutable, fleet.silent)
    latter = _routable(
        after,
        fleet.unroutable if unroutable is None else unroutable,
        fleet.silent if silent is None else silent,
    )
    if former == latter:
        return fleet.served
    changed = fleet.served.copy()
    for serves, step in ((former, -1), (latter, 1)):
        for pools in serves.values():
            for name, _ in pools:
                changed[name] = changed.get(name, 0) + step
    return MappingProxyType({name: count for name, count in changed.items() if count})


def _routable(
    members: Iterable[tuple[WorkerId, Member | None]], unroutable: Mapping[WorkerId, Order], silent: Silent
) -> dict[WorkerId, Serves]:
    routable = {}
    for worker, member in members:
        if member is not None and member.serves and worker not in unroutable:
            silent_there = silent_in(member, silent)
            routable[worker] = tuple(serve for serve in member.serves if serve[0] not in silent_there)
    return routable
