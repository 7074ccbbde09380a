"""The fleet as an immutable value, and what announcements and time make of it: pure.

Times are milliseconds of one monotonic clock, the reader's own. Announcements come in batches: the mappings
are copied once a batch, so that an announcement's cost does not grow with the fleet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeAlias

from tether.discovery.announcements.presence import LARGEST_NUMBER, Order, Presence, Supported, WorkerState
from tether.scheduling.models import pool_name

SUSPECT_AFTER_INTERVALS = 1.5
"""Intervals without an announcement after which a worker is chosen only where nothing else can serve."""

NEVER = 2**63 - 1
"""A time that does not come."""

Serves: TypeAlias = tuple[tuple[str, Supported], ...]
"""Names of pools, each with the model that is served there."""


@dataclass(frozen=True, slots=True)
class Member:
    """A worker, as last heard of.

    Attributes:
      presence: Its newest announcement.
      first_seen: When this reader first heard of it.
      renewed_at: When the newest announcement was made, as far as the reader can tell.
      expires_at: When it no longer counts.
      serves: The pools that it takes jobs from; none while it drains.
    """

    presence: Presence
    first_seen: int
    renewed_at: int
    expires_at: int
    serves: Serves = ()


def _no_members() -> MappingProxyType[str, Member]:
    return MappingProxyType({})


def _no_orders() -> MappingProxyType[str, Order]:
    return MappingProxyType({})


def _no_pools() -> MappingProxyType[str, int]:
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
      served: How many members serve each pool, by its name. It stays the same object as long as nobody comes,
        goes, becomes unroutable or serves something else.
      next_expiry: No member's life ends before.
    """

    interval_ms: int = 5_000
    expiry_ms: int = 15_000
    members: MappingProxyType[str, Member] = field(default_factory=_no_members)
    newest: MappingProxyType[str, Order] = field(default_factory=_no_orders)
    unroutable: MappingProxyType[str, Order] = field(default_factory=_no_orders)
    served: MappingProxyType[str, int] = field(default_factory=_no_pools)
    next_expiry: int = NEVER


def apply(fleet: Fleet, presence: Presence, now: int, life_ms: int | None = None) -> Fleet:
    """The fleet after an announcement. One that is not strictly newer changes nothing.

    Args:
      life_ms: What is left of its life, where it did not come straight from the worker.
    """
    return apply_all(fleet, [(presence, life_ms)], now)[0]


def apply_all(
    fleet: Fleet, heard: Iterable[tuple[Presence, int | None]], now: int
) -> tuple[Fleet, tuple[int, ...]]:
    """The fleet after announcements, one after the other, and the positions of those that counted.

    Args:
      heard: Each with what is left of its life, or None where it came straight from the worker.
    """
    orders: dict[str, Order] = {}
    changed: dict[str, Member | None] = {}
    counted: list[int] = []
    for position, (presence, life_ms) in enumerate(heard):
        worker, order = presence.worker_id, presence.order
        known = orders.get(worker) or fleet.newest.get(worker)
        if known is not None and order <= known:
            continue
        counted.append(position)
        orders[worker] = order
        former = changed[worker] if worker in changed else fleet.members.get(worker)
        changed[worker] = _member(fleet, former, presence, life_ms, now)
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
            served=_served(fleet.served, before, fleet.unroutable, changed.items(), unroutable),
            next_expiry=next_expiry,
        ),
        tuple(counted),
    )


def expire(fleet: Fleet, now: int) -> Fleet:
    """The fleet without those whose life has ended."""
    if now < fleet.next_expiry:
        return fleet
    members = {worker: member for worker, member in fleet.members.items() if member.expires_at > now}
    next_expiry = min((member.expires_at for member in members.values()), default=NEVER)
    gone = [(worker, member) for worker, member in fleet.members.items() if worker not in members]
    if not gone:
        return replace(fleet, next_expiry=next_expiry)
    served = _served(fleet.served, gone, fleet.unroutable, (), fleet.unroutable)
    return replace(fleet, members=MappingProxyType(members), served=served, next_expiry=next_expiry)


def unroutable(fleet: Fleet, boot_id: str) -> Fleet:
    """The fleet in which nothing is sent to a worker until it is heard of again.

    Args:
      boot_id: The worker's boot id. Where a newer process of that worker is there already, nothing changes.
    """
    worker, _, counter = boot_id.partition(".")
    member = fleet.members.get(worker)
    if member is None or (counter.isdigit() and int(counter) < member.presence.boot_counter):
        return fleet
    return unroutable_up_to(fleet, worker, member.presence.order)


def unroutable_up_to(fleet: Fleet, worker: str, order: Order) -> Fleet:
    """The fleet in which nothing is sent to a worker until something newer than ``order`` is heard of it.

    Where that was heard already, nothing changes. The worker need not be known yet.
    """
    newest, marked = fleet.newest.get(worker), fleet.unroutable.get(worker)
    if (newest is not None and newest > order) or (marked is not None and marked >= order):
        return fleet
    marks = MappingProxyType({**fleet.unroutable, worker: order})
    member = [(worker, fleet.members.get(worker))]
    served = _served(fleet.served, member, fleet.unroutable, member, marks)
    return replace(fleet, unroutable=marks, served=served)


def only(fleet: Fleet, keep: Callable[[Presence], bool]) -> Fleet:
    """The fleet without the members that shall not be kept. Their newest orders stay known."""
    gone = [(worker, member) for worker, member in fleet.members.items() if not keep(member.presence)]
    if not gone:
        return fleet
    members = fleet.members.copy()
    for worker, _ in gone:
        del members[worker]
    served = _served(fleet.served, gone, fleet.unroutable, (), fleet.unroutable)
    return replace(fleet, members=MappingProxyType(members), served=served)


def is_contested(member: Member, presence: Presence) -> bool:
    """Whether an announcement that is not newer than a member's newest shows that two processes announce
    themselves with one key.

    One process gives each announcement a number of its own, and makes those with greater numbers later.
    """
    known = member.presence
    if presence.boot_counter != known.boot_counter:
        return False
    if presence.sequence == known.sequence:
        return presence.nonce != known.nonce
    return presence.sequence < known.sequence and presence.issued_at > known.issued_at


def contested(fleet: Fleet, worker: str, boot_counter: int) -> Fleet:
    """The fleet in which nothing is sent to a worker until it is heard of with a greater boot counter."""
    return unroutable_up_to(fleet, worker, Order(boot_counter, LARGEST_NUMBER))


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
    if presence.state is not WorkerState.SERVING:
        return ()
    named = {pool_name(presence.gpu_class, presence.region, model): model for model in presence.supported}
    return tuple((name, named[name]) for name in dict.fromkeys(presence.pools) if name in named)


def _offer(presence: Presence) -> tuple[object, ...]:
    return (presence.state, presence.pools, presence.supported, presence.gpu_class, presence.region)


def _lifted(marks: MappingProxyType[str, Order], orders: Mapping[str, Order]) -> MappingProxyType[str, Order]:
    lifted = {worker for worker in marks.keys() & orders.keys() if orders[worker] > marks[worker]}
    if not lifted:
        return marks
    return MappingProxyType({worker: order for worker, order in marks.items() if worker not in lifted})


def _served(
    counts: MappingProxyType[str, int],
    before: Iterable[tuple[str, Member | None]],
    marks_before: Mapping[str, Order],
    after: Iterable[tuple[str, Member | None]],
    marks_after: Mapping[str, Order],
) -> MappingProxyType[str, int]:
    """The counts after some members, all of them in ``before``, have become what is in ``after``."""
    former, latter = _routable(before, marks_before), _routable(after, marks_after)
    if former == latter:
        return counts
    changed = counts.copy()
    for serves, step in ((former, -1), (latter, 1)):
        for pools in serves.values():
            for name, _ in pools:
                changed[name] = changed.get(name, 0) + step
    return MappingProxyType({name: count for name, count in changed.items() if count})


def _routable(members: Iterable[tuple[str, Member | None]], marks: Mapping[str, Order]) -> dict[str, Serves]:
    return {
        worker: member.serves
        for worker, member in members
        if member is not None and member.serves and worker not in marks
    }
