"""Complete cache manifests: what a worker has, where its announcements have no room for all of it.

An envelope is an Ed25519 signature (RFC 8032, 64 bytes) and then canonical JSON. What is signed is
:data:`DOMAIN` and then that JSON.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace

import msgspec
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from tether.discovery.announcements.presence import ISSUE_WINDOW_MS, CacheManifest, Presence, cut_manifest
from tether.discovery.announcements.wire_types import (
    WholeManifestFields,
    encode,
    manifest_from_fields,
    manifest_to_fields,
    read_fields,
    wrong_field,
)
from tether.errors import InvalidAnnouncement
from tether.ids import BootId

VERSION = 1
DOMAIN = b"tether manifest 1\0"
MAX_MANIFEST_BYTES = 1_048_576
"""Bytes that an envelope may have."""

MAX_ARTIFACTS = 8_192

_SIGNATURE_BYTES = 64
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
    boot_id: BootId
    cache: CacheManifest
    issued_at: int


def sign_manifest(manifest: WholeManifest, key: SigningKey) -> bytes:
    """The envelope of a manifest, with as much of the cache as fits."""
    size = min(len(manifest.cache.artifacts), MAX_ARTIFACTS)
    if not _fits(_body(manifest, size)):
        size = bisect_left(range(size), True, key=lambda number: not _fits(_body(manifest, number))) - 1
    body = _body(manifest, size)
    return key.sign(DOMAIN + body).signature + body


def _fits(body: bytes) -> bool:
    return _SIGNATURE_BYTES + len(body) <= MAX_MANIFEST_BYTES


def _body(manifest: WholeManifest, artifacts: int) -> bytes:
    return encode(_to_fields(replace(manifest, cache=cut_manifest(manifest.cache, artifacts))))


def verify_manifest(envelope: bytes, presence: Presence, now_ms: int) -> WholeManifest:
    """The manifest in an envelope, which the worker that announces this has signed in this life of it.

    Args:
      envelope: Any bytes.
      now_ms: Milliseconds since the epoch.

    Raises:
      InvalidAnnouncement: And nothing else, whatever the bytes. Its reason is ``size``, ``signature``,
        ``json``, ``version``, ``fields``, ``canonical``, ``network``, ``boot`` or ``clock``.
    """
    if not _SIGNATURE_BYTES < len(envelope) <= MAX_MANIFEST_BYTES:
        raise InvalidAnnouncement("size", f"a manifest of {len(envelope)} bytes is too short or too long")
    signature, body = envelope[:_SIGNATURE_BYTES], envelope[_SIGNATURE_BYTES:]
    try:
        VerifyKey(bytes.fromhex(presence.pub_key)).verify(DOMAIN + body, signature)
    except BadSignatureError:
        raise InvalidAnnouncement("signature", "the signature of a manifest is invalid") from None
    manifest = _manifest_in(body)
    if manifest.network != presence.network:
        raise InvalidAnnouncement("network", "a manifest is of another network")
    if (manifest.pub_key, manifest.boot_id) != (presence.pub_key, presence.boot_id):
        raise InvalidAnnouncement("boot", "a manifest is of another run of its worker")
    if abs(manifest.issued_at - now_ms) > ISSUE_WINDOW_MS:
        raise InvalidAnnouncement("clock", "a manifest is old, or its worker's clock is wrong")
    return manifest


_decode = msgspec.json.Decoder(WholeManifestFields).decode


def _manifest_in(body: bytes) -> WholeManifest:
    """
    Raises:
      InvalidAnnouncement: It is none of this version, or not canonical.
    """
    fields = read_fields(_decode, body, (VERSION,), _WHAT)
    if encode(fields) != body:
        raise InvalidAnnouncement("canonical", f"{_WHAT} is not written in canonical form")
    if len(fields.cache_manifest.artifacts) > MAX_ARTIFACTS:
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
