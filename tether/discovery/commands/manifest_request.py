"""Asking a worker for its complete cache manifest, which it writes to Redis when a command asks for it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import redis
from nacl.signing import SigningKey

from tether.broker.keys import Keys
from tether.broker.scripts import Scripts
from tether.clocks import wall_clock_ms
from tether.discovery.announcements.manifests import verify_manifest
from tether.discovery.announcements.presence import CacheManifest, Presence
from tether.discovery.commands.command import Action, command_to, sign_command
from tether.discovery.commands.inbox import send_command
from tether.errors import InvalidAnnouncement
from tether.ids import WorkerId

LIFE_MS = 60_000
"""How long Redis keeps an answer."""

ANSWER_SECONDS = 5.0
"""What an answer may take where nobody says otherwise."""

MAX_LISTEN_SECONDS = 0.5
"""Between two looks for an answer of which no word came."""

_ID_BYTES = 16
_SCRIPTS = Scripts(Path(__file__).with_name("lua"))


def write_manifest(client: redis.Redis, keys: Keys, worker_id: WorkerId, envelope: bytes) -> None:
    """Put a worker's manifest where :func:`request_manifest` finds it, and tell those who wait; at Redis's
    memory limit too.

    Raises:
      RedisError: Redis does not take it.
    """
    _SCRIPTS.run(client, "write_manifest", keys.fleet_manifest(worker_id), envelope, LIFE_MS)


def request_manifest(
    client: redis.Redis,
    keys: Keys,
    presence: Presence,
    operator: SigningKey,
    *,
    seconds: float = ANSWER_SECONDS,
    now_ms: Callable[[], int] = wall_clock_ms,
    clock: Callable[[], float] = time.monotonic,
    randomness: Callable[[int], bytes] = os.urandom,
) -> CacheManifest | None:
    """Ask a worker for all that its cache has, and wait for the answer.

    One that lies in Redis already is taken where it is just what the worker announces.

    Args:
      client: Returns bytes.
      presence: What the worker announces.
      operator: Signs the command.
      seconds: The longest wait.
      now_ms: Milliseconds since the epoch.
      clock: Seconds.

    Returns:
      None where no answer came in time: the worker is away, or does not take commands of this operator.

    Raises:
      RedisError: Redis does not answer.
    """
    place = keys.fleet_manifest(presence.worker_id)
    news: Any = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
    with closing(news):
        news.subscribe(place)
        # The answer means that no word is missed from here on.
        news.get_message(ignore_subscribe_messages=False, timeout=seconds)
        former = _read(client, place)
        cache = _cache_in(former, presence, now_ms())
        if cache is not None and cache.is_complete and cache.digest == presence.cache.digest:
            return cache
        command = command_to(
            presence, Action.MANIFEST, operator, command_id=randomness(_ID_BYTES).hex(), now_ms=now_ms()
        )
        until = clock() + seconds
        send_command(client, keys, command, sign_command(command, operator))
        while (left := until - clock()) > 0:
            news.get_message(timeout=min(left, MAX_LISTEN_SECONDS))
            answer = _read(client, place)
            if answer != former:
                cache = _cache_in(answer, presence, now_ms())
                if cache is not None:
                    return cache
    return None


def _read(client: redis.Redis, place: str) -> bytes | None:
    envelope: Any = client.get(place)
    return envelope if isinstance(envelope, bytes) else None


def _cache_in(envelope: bytes | None, presence: Presence, now_ms: int) -> CacheManifest | None:
    if envelope is None:
        return None
    try:
        return verify_manifest(envelope, presence, now_ms).cache
    except InvalidAnnouncement:
        return None
