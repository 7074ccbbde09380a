"""Keeps in Redis what worker clients of other makes go by: the scripts of the worker port, and settings."""

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
from tether.config.settings import Settings
from tether.discovery.over_redis.redis_presence import PRESENCE_SCRIPTS
from tether.jobs import canonical_json
from tether.loops import IDLE
from tether.orchestrator.context import LoopContext
from tether.telemetry.logs import get_logger

PORT_VERSION = 1
"""Of the contract in docs/reference/worker-port.md. A change of arguments or answers that a client must know
of is another version; scripts of one version may differ in all else."""

WORKER_SCRIPTS = ("draw", "append_many", "beat", "finish", "fail", "release", "submit", "gone")
"""What a worker runs, in the folder of pool jobs."""

ANNOUNCE = "announce"


@cache
def port_scripts() -> Mapping[str, str]:
    """Each script as a whole text, by its name."""
    texts = {name: BROKER_SCRIPTS.source(f"pool/{name}") for name in WORKER_SCRIPTS}
    return {**texts, ANNOUNCE: PRESENCE_SCRIPTS.source(ANNOUNCE)}


def port_settings(settings: Settings) -> Mapping[str, str]:
    """What workers have to keep to, in ms, by the names of the fields."""
    return {
        "lease": str(settings.jobs.lease),
        "loading_limit": str(settings.jobs.loading_limit),
        "presence_interval": str(settings.presence.interval),
        "presence_expiry": str(settings.presence.expiry),
    }


def port_fields(settings: Settings) -> Mapping[str, str]:
    """The fields of the hash: scripts and settings, ``v``, the version of their contract, and ``digest``, the
    SHA-256 of all others in the order of their names, as JSON."""
    fields = {**port_scripts(), **port_settings(settings), "v": str(PORT_VERSION)}
    return {**fields, "digest": hashlib.sha256(canonical_json(fields)).hexdigest()}


def health_fields(settings: Settings) -> Mapping[str, str]:
    """When scripts hold a worker that fails, by the names of the fields."""
    return {
        "failures": str(settings.retries.worker_failures),
        "pause": str(settings.retries.worker_pause),
        "max_pause": str(settings.retries.worker_max_pause),
    }


class PublishPortScripts:
    """One look: writes the fields where Redis has others or none, unless those are of a newer contract."""

    def __init__(self, client: redis.Redis, keys: Keys, settings: Settings) -> None:
        self._client = client
        self._key = keys.worker_port
        self._fields = port_fields(settings)
        self._health_key = keys.worker_health_settings
        self._health = health_fields(settings)
        self._log = get_logger("tether.orchestrator")

    @classmethod
    def make(cls, context: LoopContext) -> Self:
        return cls(context.plane.pools.client, context.plane.keys, context.plane.settings)

    def __call__(self) -> float:
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hmget(self._key, "v", "digest")
        pipeline.hmget(self._health_key, *self._health)
        held, health = each_answer(pipeline)
        if isinstance(health, Exception):
            self._client.delete(self._health_key)
        if health != [value.encode() for value in self._health.values()]:
            pairs = itertools.chain(*self._health.items())
            write_past_limit(self._client, self._health_key, "HSET", self._health_key, *pairs)
        if isinstance(held, Exception):
            # What is no hash was written by nobody of ours.
            self._client.delete(self._key)
        elif held[1] == self._fields["digest"].encode() or _version(held[0]) > PORT_VERSION:
            return IDLE
        fields = itertools.chain(*self._fields.items())
        write_past_limit(self._client, self._key, "HSET", self._key, *fields)
        self._log.info("The scripts of the worker port were written to Redis.", version=PORT_VERSION)
        return IDLE


def _version(text: Any) -> int:
    return int(text) if isinstance(text, bytes) and text.isdigit() and len(text) < 10 else 0
