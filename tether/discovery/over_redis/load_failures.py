"""Why workers cannot load models, in Redis: announcements have no room for reasons."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import redis

from tether.broker.keys import Keys
from tether.broker.redis.memory_limit import write_past_limit
from tether.ids import WorkerId

LIFE_MS = 20_000
"""So long it stands where the worker does not say it again."""

TELL_SECONDS = 5.0
"""A worker says it again that often."""

MAX_REASONS = 16
MAX_REASON_CHARACTERS = 300


def write_load_failures(
    client: redis.Redis, keys: Keys, worker_id: WorkerId, reasons: Mapping[str, str]
) -> None:
    """Say why a worker cannot load models, or that it can load all.

    Args:
      reasons: By the names of models.
    """
    place = keys.fleet_failing(worker_id)
    if not reasons:
        client.delete(place)
        return
    kept = {name: why[:MAX_REASON_CHARACTERS] for name, why in list(reasons.items())[:MAX_REASONS]}
    write_past_limit(client, place, "SET", place, json.dumps(kept), "PX", str(LIFE_MS))


def read_load_failures(
    client: redis.Redis, keys: Keys, workers: Sequence[WorkerId]
) -> Mapping[WorkerId, Mapping[str, str]]:
    """Why these workers cannot load models; those that say nothing readable are left out."""
    if not workers:
        return {}
    texts = client.mget([keys.fleet_failing(worker) for worker in workers])
    found = {worker: _reasons(text) for worker, text in zip(workers, texts, strict=True)}
    return {worker: reasons for worker, reasons in found.items() if reasons}


def _reasons(text: bytes | str | None) -> dict[str, str]:
    try:
        found = json.loads(text or b"{}")
    except (ValueError, RecursionError):
        return {}
    pairs = list(found.items())[:MAX_REASONS] if isinstance(found, dict) else []
    return {_printable(name): _printable(why) for name, why in pairs if isinstance(why, str)}


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else " " for one in text[:MAX_REASON_CHARACTERS])
