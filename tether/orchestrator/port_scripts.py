"""Keeps the scripts of the worker port in Redis, where worker clients of other makes find them."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from functools import cache
from typing import Any, Self

import redis

from tether.broker.keys import Keys
from tether.broker.redis.connections import each_answer
from tether.broker.redis.memory_limit import write_past_limit
from tether.broker.scripts import BROKER_SCRIPTS
from tether.discovery.over_redis.redis_presence import PRESENCE_SCRIPTS
from tether.loops import IDLE
from tether.orchestrator.context import LoopContext
from tether.telemetry.logs import get_logger

PORT_VERSION = 1
"""Of the contract in docs/reference/worker-port.md. A change of arguments or answers that a client must know
of is another version; scripts of one version may differ in all else."""

WORKER_SCRIPTS = ("draw", "append_many", "beat", "finish", "fail", "release", "submit")
"""What a worker runs, in the folder of pool jobs."""

ANNOUNCE = "announce"


@cache
def port_scripts() -> Mapping[str, str]:
    """The fields of the hash: each script as a whole text by its name, ``v``, the version of their contract,
    and ``digest``, the SHA-256 of all texts in the order of their names."""
    texts = {name: BROKER_SCRIPTS.source(f"pool/{name}") for name in WORKER_SCRIPTS}
    texts[ANNOUNCE] = PRESENCE_SCRIPTS.source(ANNOUNCE)
    whole = "".join(texts[name] for name in sorted(texts))
    return {**texts, "v": str(PORT_VERSION), "digest": hashlib.sha256(whole.encode()).hexdigest()}


class PublishPortScripts:
    """One look: writes the scripts where Redis has others or none, unless those are of a newer contract."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._key = keys.worker_port
        self._log = get_logger("tether.orchestrator")

    @classmethod
    def make(cls, context: LoopContext) -> Self:
        return cls(context.plane.pools.client, context.plane.keys)

    def __call__(self) -> float:
        scripts = port_scripts()
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hmget(self._key, "v", "digest")
        (held,) = each_answer(pipeline)
        if isinstance(held, Exception):
            # What is no hash was written by nobody of ours.
            self._client.delete(self._key)
        elif held[1] == scripts["digest"].encode() or _version(held[0]) > PORT_VERSION:
            return IDLE
        fields = itertools.chain(*scripts.items())
        write_past_limit(self._client, self._key, "HSET", self._key, *fields)
        self._log.info("The scripts of the worker port were written to Redis.", version=PORT_VERSION)
        return IDLE


def _version(text: Any) -> int:
    return int(text) if isinstance(text, bytes) and text.isdigit() and len(text) < 10 else 0
