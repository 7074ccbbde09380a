"""Complete cache manifests: what a worker has, where its announcements have no room for all of it.

A worker writes its manifest to Redis when an operator's command asks for it. The envelope is an Ed25519
signature (RFC 8032, 64 bytes) and then canonical JSON. What is signed is :data:`DOMAIN` and then that JSON.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import redis
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from tether.broker.keys import Keys
from tether.discovery.announcements.presence import ISSUE_WINDOW_MS, CacheManifest, Presence, cut_manifest
from tether.discovery.announcements.wire_types import (
    WholeManifestFields,
    encode,
    manifest_from_fields,
    manifest_to_fields,
    read_fields,
    wrong_field,
)
from tether.discovery.commands.command import Action, command_to, sign_command
from tether.discovery.commands.inbox import send_command
from tether.discovery.fleet.fleet_view import epoch_ms
from tether.errors import InvalidAnnouncement

VERSION = 1
DOMAIN = b"tether manifest 1\0"
LARGEST_MANIFEST = 1_048_576
"""Bytes that an envelope may have."""

MOST_ARTIFACTS = 8_192
LIFE_MS = 60_000
"""How long Redis keeps an answer."""

ANSWER_SECONDS = 5.0
"""What an answer may take where nobody says otherwise."""

LONGEST_LISTEN_SECONDS = 0.5
"""Between two looks for an answer of which no word came."""

_SIGNATURE_BYTES = 64
_ID_BYTES = 16
_WHAT = "a manifest"


@dataclass(frozen=True, kw_only=True)
class WholeManifest:
    """What a worker answers.

    Attributes:
      network, pub_key, boot_id: Whose it is, as in its announcements.
      cache: All that it has; where even that is too much, what fits of it, the warm ones first.
      issued_at: Milliseconds since the epoch by its own clock.
    """

    network: str
    pub_key: str
    boot_id: str
    cache: CacheManifest
    issued_at: int


def sign_manifest(manifest: WholeManifest, key: SigningKey) -> bytes:
    """The envelope of a manifest, with as much of the cache as fits."""
    size = min(len(manifest.cache.artifacts), MOST_ARTIFACTS)
    if not _fits(_body(manifest, size)):
        size = bisect_left(range(size), True, key=lambda number: not _fits(_body(manifest, number))) - 1
    body = _body(manifest, size)
    return key.sign(DOMAIN + body).signature + body


def _fits(body: bytes) -> bool:
    return _SIGNATURE_BYTES + len(body) <= LARGEST_MANIFEST


def _body(manifest: WholeManifest, artifacts: int) -> bytes:
    return encode(_to_fields(replace(manifest, cache=cut_manifest(manifest.cache, artifacts))))


def verify_manifest(envelope: bytes, presence: Presence, now_ms: int) -> WholeManifest:
    """The manifest in an envelope, which the worker that announces this has signed in this life of it.

    Args:
      envelope: Any bytes.
      now_ms: Milliseconds since the epoch.

    Raises:
      InvalidAnnouncement: And nothing else, whatever the bytes. Its reason is ``size``, ``signature``,
        ``json``, ``version``, ``fields``, ``network``, ``boot`` or ``clock``.
    """
    if not _SIGNATURE_BYTES < len(envelope) <= LARGEST_MANIFEST:
        raise InvalidAnnouncement("size", f"a manifest of {len(envelope)} bytes is too short or too long")
    signature, body = envelope[:_SIGNATURE_BYTES], envelope[_SIGNATURE_BYTES:]
    try:
        VerifyKey(bytes.fromhex(presence.pub_key)).verify(DOMAIN + body, signature)
    except BadSignatureError:
        raise InvalidAnnouncement("signature", "the signature of a manifest is wrong") from None
    manifest = _manifest_in(body)
    if manifest.network != presence.network:
        raise InvalidAnnouncement("network", "a manifest is of another network")
    if (manifest.pub_key, manifest.boot_id) != (presence.pub_key, presence.boot_id):
        raise InvalidAnnouncement("boot", "a manifest is of another life of its worker")
    if abs(manifest.issued_at - now_ms) > ISSUE_WINDOW_MS:
        raise InvalidAnnouncement("clock", "a manifest is old, or its worker's clock is wrong")
    return manifest


def write_manifest(client: redis.Redis, keys: Keys, worker: str, envelope: bytes) -> None:
    """Put a worker's manifest where :func:`request_manifest` finds it, and tell those who wait.

    Raises:
      RedisError: Redis does not take it.
    """
    place = keys.fleet_manifest(worker)
    with client.pipeline(transaction=True) as pipeline:
        pipeline.set(place, envelope, px=LIFE_MS)
        pipeline.publish(place, b"")
        pipeline.execute()


def request_manifest(
    client: redis.Redis,
    keys: Keys,
    presence: Presence,
    operator: SigningKey,
    *,
    seconds: float = ANSWER_SECONDS,
    now_ms: Callable[[], int] = epoch_ms,
    clock: Callable[[], float] = time.monotonic,
    randomness: Callable[[int], bytes] = os.urandom,
) -> CacheManifest | None:
    """Ask a worker for all that its cache has, and wait for the answer.

    One that lies in Redis already is taken where it is just what the worker announces.

    Args:
      client: Answers in bytes.
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
            news.get_message(timeout=min(left, LONGEST_LISTEN_SECONDS))
            answer = _read(client, place)
            if answer != former:
                cache = _cache_in(answer, presence, now_ms())
                if cache is not None:
                    return cache
    return None


def _read(client: redis.Redis, place: str) -> bytes | None:
    found: Any = client.get(place)
    return found if isinstance(found, bytes) else None


def _cache_in(envelope: bytes | None, presence: Presence, now_ms: int) -> CacheManifest | None:
    if envelope is None:
        return None
    try:
        return verify_manifest(envelope, presence, now_ms).cache
    except InvalidAnnouncement:
        return None


_decode = msgspec.json.Decoder(WholeManifestFields).decode


def _manifest_in(body: bytes) -> WholeManifest:
    """
    Raises:
      InvalidAnnouncement: It is none of this version.
    """
    fields = read_fields(_decode, body, VERSION, _WHAT)
    if len(fields.cache_manifest.artifacts) > MOST_ARTIFACTS:
        raise wrong_field("cacheManifest", _WHAT)
    return WholeManifest(
        network=fields.network,
        pub_key=fields.pub_key,
        boot_id=fields.boot_id,
        cache=manifest_from_fields(fields.cache_manifest),
        issued_at=fields.issued_at,
    )


def _to_fields(manifest: WholeManifest) -> WholeManifestFields:
    return WholeManifestFields(
        v=VERSION,
        network=manifest.network,
        pub_key=manifest.pub_key,
        boot_id=manifest.boot_id,
        cache_manifest=manifest_to_fields(manifest.cache),
        issued_at=manifest.issued_at,
    )
