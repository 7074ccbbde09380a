"""The documents of workers of the fleet, as the command line and the gateway show them."""

from __future__ import annotations

from typing import Any, NamedTuple

from tether.discovery.announcements.presence import CacheManifest
from tether.discovery.fleet.fleet import Fleet, Member, silent_in
from tether.discovery.fleet.liveness import Evidence, last_asked
from tether.discovery.fleet.shown_states import ShownState
from tether.ids import PoolName


class Drawing(NamedTuple):
    """What a worker was seen to do with its pools.

    Attributes:
      silent: Those that it announces and does not draw from.
      asked_ms: How long ago it last asked for jobs; None where that was not seen.
    """

    silent: frozenset[PoolName]
    asked_ms: int | None


def drawing_of(member: Member, fleet: Fleet, evidence: Evidence | None) -> Drawing:
    """What a worker of the fleet was seen to do with its pools."""
    asked_at = None if evidence is None else last_asked(evidence, member.presence.worker_id)
    asked_ms = None if evidence is None or asked_at is None else max(0, evidence.now - asked_at)
    return Drawing(silent_in(member, fleet.silent), asked_ms)


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
        "models": [
            {"name": one.name, "version": one.version, "digest": one.digest, "state": one.state.value}
            for one in presence.supported
        ],
        "vram_total": presence.vram_total,
        "vram_free": presence.vram_free,
        "latency_hops": presence.latency_hops,
        "heard_ms": announced_ms_ago(member, now),
        "software_version": presence.software_version,
    }


def whole_worker_to_json(
    member: Member, state: ShownState, name: str, now: int, cache: CacheManifest, drawing: Drawing
) -> dict[str, Any]:
    """The same with all that is known.

    Args:
      cache: What it announced, or more of it.
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
        "cache": {
            "digest": cache.digest,
            "is_complete": cache.is_complete,
            "artifacts": [
                {**one._asdict(), "kind": one.kind.value, "state": one.state.value} for one in cache.artifacts
            ],
        },
    }


def announced_ms_ago(member: Member, now: int) -> int:
    """How long ago a worker last announced itself, in milliseconds."""
    return max(0, now - member.renewed_at)
