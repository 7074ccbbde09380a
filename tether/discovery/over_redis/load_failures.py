"""Why workers cannot load models, in Redis: announcements have no room for reasons."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import redis

from tether.broker.keys import Keys
from tether.broker.redis.memory_limit import write_past_limit
from tether.ids import WorkerId

LIFE_MS = 20_000
"""So long it stands where the worker does not say it again."""

TELL_SECONDS = 5.0
"""A worker says it again that often."""

MAX_FAILING_WORKERS = 256
"""Workers that are looked at, of those that cannot load models: the last that said so."""

_WITHOUT_HOPE = ""
"""Under this name stands which models failed again and again. No model is called so, and older readers skip
what is no text."""

MAX_REASONS = 16
MAX_REASON_CHARACTERS = 300


def write_load_failures(
    client: redis.Redis,
    keys: Keys,
    worker_id: WorkerId,
    reasons: Mapping[str, str],
    without_hope: Mapping[str, bool] = MappingProxyType({}),
) -> None:
    """Say why a worker cannot load models, or that it can load all.

    Args:
      reasons: By the names of models.
      without_hope: Those that failed again and again, each with whether a try may begin now.
    """
    place, index = keys.fleet_failing(worker_id), keys.failing_workers
    if not reasons:
        client.delete(place)
        client.zrem(index, worker_id)
        return
    kept: dict[str, object] = {_WITHOUT_HOPE: dict(list(without_hope.items())[:MAX_REASONS])}
    kept |= {name: why[:MAX_REASON_CHARACTERS] for name, why in list(reasons.items())[:MAX_REASONS]}
    write_past_limit(client, place, "SET", place, json.dumps(kept), "PX", str(LIFE_MS))
    if without_hope:
        seconds, microseconds = client.time()
        write_past_limit(client, index, "ZADD", index, str(seconds * 1000 + microseconds // 1000), worker_id)
        client.zremrangebyrank(index, 0, -MAX_FAILING_WORKERS - 1)
        client.pexpire(index, LIFE_MS)
    else:
        client.zrem(index, worker_id)


def read_load_failures(
    client: redis.Redis, keys: Keys, workers: Sequence[WorkerId]
) -> Mapping[WorkerId, Mapping[str, str]]:
    """Why these workers cannot load models; those that say nothing readable are left out."""
    if not workers:
        return {}
    texts = client.mget([keys.fleet_failing(worker) for worker in workers])
    found = {worker: _reasons(text) for worker, text in zip(workers, texts, strict=True)}
    return {worker: reasons for worker, reasons in found.items() if reasons}


def read_without_hope(
    client: redis.Redis, keys: Keys, workers: Sequence[WorkerId]
) -> Mapping[WorkerId, Mapping[str, bool]]:
    """Which models these workers fail to load again and again, by the models' names, each with whether a try
    may begin now; those that say nothing readable are left out.

    Raises:
      OUTAGE_ERRORS: Redis is away.
    """
    if not workers:
        return {}
    texts = client.mget([keys.fleet_failing(worker) for worker in workers])
    found = {worker: _hopes(text) for worker, text in zip(workers, texts, strict=True)}
    return {worker: hopes for worker, hopes in found.items() if hopes}


def _hopes(text: bytes | str | None) -> dict[str, bool]:
    hopes = _document(text).get(_WITHOUT_HOPE)
    pairs = list(hopes.items())[:MAX_REASONS] if isinstance(hopes, dict) else []
    return {name: may_try for name, may_try in pairs if isinstance(may_try, bool)}


def _reasons(text: bytes | str | None) -> dict[str, str]:
    found = _document(text)
    found.pop(_WITHOUT_HOPE, None)
    pairs = list(found.items())[:MAX_REASONS]
    return {_printable(name): _printable(why) for name, why in pairs if isinstance(why, str)}


def _document(text: bytes | str | None) -> dict[str, object]:
    try:
        found = json.loads(text or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else " " for one in text[:MAX_REASON_CHARACTERS])
