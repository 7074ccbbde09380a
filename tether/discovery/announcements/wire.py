"""The announcement of a worker as bytes: signed, and read back with every field checked.

An envelope is an Ed25519 signature (RFC 8032, 64 bytes) and then the announcement as canonical JSON, see
:mod:`~tether.discovery.announcements.wire_types`. What is signed is the domain of its version, see
:func:`signing_domain`, and then that JSON.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace

import msgspec
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from tether.discovery.announcements.presence import ArtifactState, Presence, boot_id, cut_manifest, worker_id
from tether.discovery.announcements.wire_types import (
    MAX_ANNOUNCED_ARTIFACTS,
    AnnouncementFields,
    CapacityFields,
    MemoryFields,
    ModelFields,
    encode,
    known_or_0,
    known_or_unset,
    manifest_from_fields,
    manifest_to_fields,
    model_from_fields,
    read_fields,
    wrong_field,
)
from tether.discovery.topics import is_of_region
from tether.errors import InvalidAnnouncement

VERSION = 3
READ_VERSIONS = (VERSION - 1, VERSION)
MAX_ENVELOPE_BYTES = 16_384
"""Bytes that an envelope may have."""

_SIGNATURE_BYTES = 64
_SINCE_RATES = 3
_WHAT = "an announcement"


def signing_domain(version: int) -> bytes:
    """What is signed before the JSON of an announcement, so that the signature is of nothing else."""
    return b"tether presence %d\0" % version


def sign(presence: Presence, key: SigningKey) -> bytes:
    """The envelope of an announcement. Of a cache manifest for which there is no room it has what is warm, or
    as much of that as fits; where even the models are too many, how long they take to load is left out.

    Raises:
      InvalidAnnouncement: No reader would take it; the reason is the one that readers would give.
    """
    if key.verify_key.encode().hex() != presence.pub_key:
        why = "the announcement names a different key from the one that signed it"
        raise InvalidAnnouncement("signature", why)
    body = _body_that_fits(presence)
    _presence_of(read_fields(_decode, body, READ_VERSIONS, _WHAT), body)
    return key.sign(signing_domain(VERSION) + body).signature + body


def _body_that_fits(presence: Presence) -> bytes:
    artifacts = presence.cache.artifacts
    body = _body(presence, len(artifacts))
    if _fits(body) and len(artifacts) <= MAX_ANNOUNCED_ARTIFACTS:
        return body
    warm = sum(artifact.state is ArtifactState.WARM for artifact in artifacts)
    enough = range(min(warm, MAX_ANNOUNCED_ARTIFACTS) + 1)
    most = bisect_left(enough, True, key=lambda number: not _fits(_body(presence, number))) - 1
    if most < 0 and any(model.load_seconds for model in presence.supported):
        shorter = tuple(replace(model, load_seconds=0.0) for model in presence.supported)
        return _body_that_fits(replace(presence, supported=shorter))
    if most < 0:
        why = f"the announcement has more than {MAX_ENVELOPE_BYTES} bytes: serve fewer models on one worker"
        raise InvalidAnnouncement("size", why)
    return _body(presence, most)


def _body(presence: Presence, artifacts: int) -> bytes:
    return encode(_to_fields(replace(presence, cache=cut_manifest(presence.cache, artifacts))))


def _fits(body: bytes) -> bool:
    return _SIGNATURE_BYTES + len(body) <= MAX_ENVELOPE_BYTES


def verify_envelope(
    envelope: bytes,
    trusted: Callable[[str], bool],
    network: str | None = None,
    topics: Callable[[str], bool] | None = None,
) -> Presence:
    """The announcement in an envelope, whose signer is trusted.

    Args:
      envelope: Any bytes.
      trusted: Returns whether announcements of a public key, in hexadecimal, are accepted.
      network: The only network whose announcements count; None is any.
      topics: Returns whether announcements on a topic are accepted; None accepts all.

    Raises:
      InvalidAnnouncement: And nothing else, whatever the bytes. Its reason is ``size``, ``json``,
        ``version``, ``fields``, ``network``, ``topic``, ``untrusted``, ``signature`` or ``canonical``.
    """
    if not _SIGNATURE_BYTES < len(envelope) <= MAX_ENVELOPE_BYTES:
        raise InvalidAnnouncement("size", f"an envelope of {len(envelope)} bytes is too short or too long")
    signature, body = envelope[:_SIGNATURE_BYTES], envelope[_SIGNATURE_BYTES:]
    fields = read_fields(_decode, body, READ_VERSIONS, _WHAT)
    if network is not None and fields.network != network:
        raise InvalidAnnouncement(
            "network", f"{_WHAT} is of another network: use the same network.secret everywhere"
        )
    if topics is not None and not topics(fields.topic):
        raise InvalidAnnouncement("topic", f"{_WHAT} is for another topic")
    if not trusted(fields.pub_key):
        raise InvalidAnnouncement(
            "untrusted",
            f"the key of worker {worker_id(fields.pub_key)} is not trusted: enrol it with "
            "`tether fleet trust`, or add it to presence.trusted_keys",
        )
    try:
        VerifyKey(bytes.fromhex(fields.pub_key)).verify(signing_domain(fields.v) + body, signature)
    except BadSignatureError:
        raise InvalidAnnouncement("signature", f"the signature of {_WHAT} is invalid") from None
    return _presence_of(fields, body)


_decode = msgspec.json.Decoder(AnnouncementFields).decode


def _presence_of(fields: AnnouncementFields, body: bytes) -> Presence:
    """
    Raises:
      InvalidAnnouncement: Fields do not fit each other, or ``body`` is not how they are written.
    """
    if encode(fields) != body:
        raise InvalidAnnouncement("canonical", f"{_WHAT} is not written in canonical form")
    worker = worker_id(fields.pub_key)
    if fields.worker_id != worker:
        raise wrong_field("workerId", _WHAT)
    if fields.boot_id != boot_id(worker, fields.boot_counter):
        raise wrong_field("bootId", _WHAT)
    if not is_of_region(fields.topic, fields.region):
        raise InvalidAnnouncement(
            "topic", f"{_WHAT} of worker {worker} for region {fields.region} is on a topic of another region"
        )
    if fields.capacity.free > fields.capacity.slots:
        raise wrong_field("capacity", _WHAT)
    if math.copysign(1.0, fields.tokens_per_second) < 0:
        raise wrong_field("tokensPerSecond", _WHAT)
    if fields.v < _SINCE_RATES and _tells_rates(fields):
        raise wrong_field("set of fields", _WHAT)
    if len(fields.cache_manifest.artifacts) > MAX_ANNOUNCED_ARTIFACTS:
        raise wrong_field("cacheManifest", _WHAT)
    return _from_fields(fields)


def _tells_rates(fields: AnnouncementFields) -> bool:
    told = (fields.prefill_tokens_per_second, *(model.load_seconds for model in fields.supported))
    return any(value is not msgspec.UNSET for value in told)


def _to_fields(presence: Presence) -> AnnouncementFields:
    return AnnouncementFields(
        v=VERSION,
        network=presence.network,
        topic=presence.topic,
        worker_id=presence.worker_id,
        pub_key=presence.pub_key,
        gpu_class=presence.gpu_class,
        region=presence.region,
        capacity=CapacityFields(slots=presence.slots, free=presence.free),
        supported=tuple(
            ModelFields(
                model.name, model.version, model.digest, model.state, known_or_unset(model.load_seconds)
            )
            for model in presence.supported
        ),
        pools=presence.pools,
        latency_hops=presence.latency_hops,
        queue_depth=presence.queue_depth,
        vram=MemoryFields(total=presence.vram_total, free=presence.vram_free),
        tokens_per_second=float(presence.tokens_per_second),
        prefill_tokens_per_second=known_or_unset(presence.prefill_tokens_per_second),
        state=presence.state,
        cache_manifest=manifest_to_fields(presence.cache),
        software_version=presence.software_version,
        boot_id=presence.boot_id,
        boot_counter=presence.boot_counter,
        sequence=presence.sequence,
        nonce=presence.nonce,
        issued_at=presence.issued_at,
    )


def _from_fields(fields: AnnouncementFields) -> Presence:
    return Presence(
        network=fields.network,
        topic=fields.topic,
        pub_key=fields.pub_key,
        gpu_class=fields.gpu_class,
        region=fields.region,
        slots=fields.capacity.slots,
        free=fields.capacity.free,
        supported=tuple(map(model_from_fields, fields.supported)),
        pools=fields.pools,
        latency_hops=fields.latency_hops,
        queue_depth=fields.queue_depth,
        vram_total=fields.vram.total,
        vram_free=fields.vram.free,
        tokens_per_second=fields.tokens_per_second,
        prefill_tokens_per_second=known_or_0(fields.prefill_tokens_per_second),
        state=fields.state,
        cache=manifest_from_fields(fields.cache_manifest),
        software_version=fields.software_version,
        boot_counter=fields.boot_counter,
        sequence=fields.sequence,
        nonce=fields.nonce,
        issued_at=fields.issued_at,
    )
