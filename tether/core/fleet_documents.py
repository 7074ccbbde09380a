"""The documents of workers of the fleet, as the command line and the gateway show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from tether.core.fleet_changes import Change, ChangeKind, Seen, look_at
from tether.core.fleet_reading import FleetReading
from tether.core.last_workers import LastWorkerPool
from tether.discovery.announcements.presence import CacheManifest
from tether.discovery.fleet.fleet import Fleet, Member, silent_in
from tether.discovery.fleet.liveness import Evidence, copied_keys, last_asked
from tether.discovery.fleet.shown_states import ShownState
from tether.ids import PoolName, WorkerId


class Drawing(NamedTuple):
    """What a worker was seen to do with its pools.

    Attributes:
      silent: Those that it announces and does not draw from.
      asked_ms: How long ago it last asked for jobs; None where that was not seen.
      held: Those from which it is held, since it fails what others do, each with the reason.
    """

    silent: frozenset[PoolName]
    asked_ms: int | None
    held: Mapping[PoolName, str] = MappingProxyType({})


@dataclass(frozen=True)
class FleetList:
    """The live workers, and what is wrong with others.

    Attributes:
      workers: Each with its name, by region, GPU class, name and id.
      now: When, by the clock that the fleet's times are of.
      untrusted: Workers that are ignored, since their keys do not count.
      copied: Those whose keys several processes use.
      wrong_clocks: Those that are ignored for their clocks, with how far these are ahead, in milliseconds.
      failing: The models that a worker cannot load, each with the reason.
      held: The pools from which a worker is held, since it fails what others do, each with the reason.
    """

    workers: Sequence[tuple[Seen, str]]
    now: int
    untrusted: Sequence[WorkerId]
    copied: Sequence[WorkerId]
    wrong_clocks: Mapping[WorkerId, int]
    failing: Mapping[WorkerId, Mapping[str, str]]
    held: Mapping[WorkerId, Mapping[PoolName, str]]


def list_fleet(reading: FleetReading) -> FleetList:
    """Return the live workers of a fleet."""
    view, names, now = reading.view, reading.names, reading.now
    workers = [(seen, names.get(worker, "")) for worker, seen in look_at(view.fleet, now).items()]
    workers.sort(key=_place)
    copied = () if view.evidence is None else copied_keys(view.evidence)
    return FleetList(
        workers,
        now,
        reading.strangers,
        tuple(copied),
        view.wrong_clocks,
        reading.load_failures(),
        reading.held_pools(),
    )


def _place(entry: tuple[Seen, str]) -> tuple[str, ...]:
    (member, _), name = entry
    presence = member.presence
    return presence.region, presence.gpu_class, name, presence.worker_id


def fleet_to_json(found: FleetList) -> dict[str, Any]:
    """The list as a document."""
    return {
        "object": "list",
        "data": [worker_to_json(*seen, name, found.now) for seen, name in found.workers],
        "untrusted": list(found.untrusted),
        "copied": list(found.copied),
        "wrong_clocks": sorted(found.wrong_clocks),
        "failing": found.failing,
        "held": found.held,
    }


def drawing_of(
    member: Member,
    fleet: Fleet,
    evidence: Evidence | None,
    held: Mapping[WorkerId, Mapping[PoolName, str]],
) -> Drawing:
    """What a worker of the fleet was seen to do with its pools.

    Args:
      held: See :class:`FleetList`.
    """
    asked_at = None if evidence is None else last_asked(evidence, member.presence.worker_id)
    asked_ms = None if evidence is None or asked_at is None else max(0, evidence.now - asked_at)
    worker = member.presence.worker_id
    return Drawing(silent_in(member, fleet.silent), asked_ms, held.get(worker, {}))


def worker_to_json(member: Member, state: ShownState, name: str, now: int) -> dict[str, Any]:
    """A worker as JSON; its pools and cache aside. ``heard_ms`` is how long ago it was last heard of."""
    presence = member.presence
    return {
        "object": "fleet_worker",
        "worker_id": presence.worker_id,
        "name": name,
        "boot_id": presence.boot_id,
        "state": state.value,
        "gpu_class": presence.gpu_class,
        "region": presence.region,
        "slots": presence.slots,
        "free": presence.free,
        "queue_depth": presence.queue_depth,
        "tokens_per_second": presence.tokens_per_second,
        "prefill_tokens_per_second": presence.prefill_tokens_per_second,
        "models": [
            {
                "name": one.name,
                "version": one.version,
                "digest": one.digest,
                "state": one.state.value,
                "load_seconds": one.load_seconds,
            }
            for one in presence.supported
        ],
        "vram_total": presence.vram_total,
        "vram_free": presence.vram_free,
        "latency_hops": presence.latency_hops,
        "heard_ms": announced_ms_ago(member, now),
        "software_version": presence.software_version,
    }


def whole_worker_to_json(
    member: Member,
    state: ShownState,
    name: str,
    now: int,
    cache: CacheManifest,
    drawing: Drawing,
    last: Sequence[LastWorkerPool] = (),
) -> dict[str, Any]:
    """The same with all that is known.

    Args:
      cache: What it announced, or more of it.
      last: The pools that it alone serves.
    """
    presence = member.presence
    return {
        **worker_to_json(member, state, name, now),
        "pub_key": presence.pub_key,
        "network": presence.network,
        "topic": presence.topic,
        "pools": list(presence.pools),
        "silent_pools": sorted(drawing.silent),
        "asked_ms": drawing.asked_ms,
        "held_pools": dict(drawing.held),
        "cache": {
            "digest": cache.digest,
            "is_complete": cache.is_complete,
            "artifacts": [
                {**one._asdict(), "kind": one.kind.value, "state": one.state.value} for one in cache.artifacts
            ],
        },
        "last_of": [vars(one) for one in last],
    }


def change_to_json(change: Change, names: Mapping[WorkerId, str], at: int) -> dict[str, Any]:
    """A change of a worker as JSON.

    Args:
      names: By worker id.
      at: When it was seen, in milliseconds since the epoch.
    """
    presence = change.member.presence
    return {
        "kind": change.kind.value,
        "at": at,
        "worker_id": presence.worker_id,
        "name": names.get(presence.worker_id, ""),
        "boot_id": presence.boot_id,
        "state": None if change.kind is ChangeKind.LEFT else change.state.value,
        "former_state": change.former.value if change.former else None,
        "said_goodbye": change.said_goodbye if change.kind is ChangeKind.LEFT else None,
        "gpu_class": presence.gpu_class,
        "region": presence.region,
        "slots": presence.slots,
    }


def announced_ms_ago(member: Member, now: int) -> int:
    """How long ago a worker last announced itself, in milliseconds."""
    return max(0, now - member.renewed_at)
