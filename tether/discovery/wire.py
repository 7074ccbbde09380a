"""The announcement of a worker as bytes: signed, and read back with every field checked.

An envelope is an Ed25519 signature (RFC 8032, 64 bytes) and then the announcement as canonical JSON: keys
sorted, no white space, UTF-8. What is signed is :data:`DOMAIN` and then that JSON. This module, and that of
the manifest's fields, alone know the names on the wire.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Never

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from tether.config_types import PLACE_NAME
from tether.discovery.field_checks import WrongField, count, exactly, listed, one_of, rate, text
from tether.discovery.manifest_fields import manifest_from_wire, manifest_to_wire
from tether.discovery.presence import (
    ArtifactState,
    ModelState,
    Presence,
    Supported,
    WorkerState,
    boot_id,
    cut_manifest,
    worker_id,
)
from tether.errors import InvalidAnnouncement
from tether.jobs import canonical_json

VERSION = 2
DOMAIN = b"tether presence 2\0"
LARGEST_ENVELOPE = 16_384
"""Bytes that an envelope may have."""

MOST_MODELS = 256
MOST_POOLS = 64
MOST_ARTIFACTS = 512
_SIGNATURE_BYTES = 64


def sign(presence: Presence, key: SigningKey) -> bytes:
    """The envelope of an announcement. Of a cache manifest for which there is no room it has what is warm, or
    as much of that as fits.

    Raises:
      InvalidAnnouncement: No reader would take it; the reason is the one that readers would give.
    """
    if key.verify_key.encode().hex() != presence.pub_key:
        why = "the announcement names another key than the one that signs it"
        raise InvalidAnnouncement("signature", why)
    body = _body_that_fits(presence)
    try:
        _from_wire(json.loads(body))
    except WrongField as error:
        raise InvalidAnnouncement("fields", f"the announcement's {error} is not valid") from None
    return key.sign(DOMAIN + body).signature + body


def _body_that_fits(presence: Presence) -> bytes:
    artifacts = presence.cache.artifacts
    body = _body(presence, len(artifacts))
    if _fits(body) and len(artifacts) <= MOST_ARTIFACTS:
        return body
    warm = sum(artifact.state is ArtifactState.WARM for artifact in artifacts)
    enough = range(min(warm, MOST_ARTIFACTS) + 1)
    most = bisect_left(enough, True, key=lambda number: not _fits(_body(presence, number))) - 1
    if most < 0:
        why = f"the announcement has more than {LARGEST_ENVELOPE} bytes: serve fewer models on one worker"
        raise InvalidAnnouncement("size", why)
    return _body(presence, most)


def _body(presence: Presence, artifacts: int) -> bytes:
    return canonical_json(_to_wire(replace(presence, cache=cut_manifest(presence.cache, artifacts))))


def _fits(body: bytes) -> bool:
    return _SIGNATURE_BYTES + len(body) <= LARGEST_ENVELOPE


def verify(
    envelope: bytes,
    trusted: Callable[[str], bool],
    network: str | None = None,
    topics: Callable[[str], bool] | None = None,
) -> Presence:
    """The announcement in an envelope, whose signer is trusted.

    Args:
      envelope: Any bytes.
      trusted: Answers whether announcements of a public key, in hexadecimal, count.
      network: The only network whose announcements count; None is any.
      topics: Answers whether announcements on a topic count; None is all.

    Raises:
      InvalidAnnouncement: And nothing else, whatever the bytes. Its reason is ``size``, ``json``,
        ``version``, ``network``, ``topic``, ``fields``, ``untrusted``, ``signature`` or ``canonical``.
    """
    if not _SIGNATURE_BYTES < len(envelope) <= LARGEST_ENVELOPE:
        raise InvalidAnnouncement("size", f"an envelope of {len(envelope)} bytes is too short or too long")
    signature, body = envelope[:_SIGNATURE_BYTES], envelope[_SIGNATURE_BYTES:]
    value = _object_in(body)
    try:
        _refuse_elsewhere(value, network, topics)
        pub_key = text(value.get("pubKey"), _KEY, "pubKey")
        if not trusted(pub_key):
            raise InvalidAnnouncement(
                "untrusted",
                f"the key of worker {worker_id(pub_key)} is not trusted: enrol it with `tether fleet trust`, "
                "or add it to presence.trusted_keys",
            )
        VerifyKey(bytes.fromhex(pub_key)).verify(DOMAIN + body, signature)
        presence = _from_wire(value)
        if canonical_json(value) != body:
            raise InvalidAnnouncement("canonical", "an announcement is not written in canonical form")
    except BadSignatureError:
        raise InvalidAnnouncement("signature", "the signature of an announcement is wrong") from None
    except WrongField as error:
        raise InvalidAnnouncement("fields", f"an announcement's {error} is not valid") from None
    except UnicodeEncodeError:
        raise InvalidAnnouncement("canonical", "an announcement has text that is no Unicode") from None
    return presence


def _object_in(body: bytes) -> dict[str, Any]:
    try:
        value = _DECODER.decode(body.decode())
    except (ValueError, RecursionError):
        raise InvalidAnnouncement("json", "an announcement is not JSON") from None
    if not isinstance(value, dict):
        raise InvalidAnnouncement("fields", "an announcement is not a JSON object")
    if type(value.get("v")) is not int or value["v"] != VERSION:
        raise InvalidAnnouncement(
            "version", f"an announcement is not of version {VERSION}: update its worker"
        )
    return value


def _refuse_elsewhere(
    value: dict[str, Any], network: str | None, topics: Callable[[str], bool] | None
) -> None:
    if network is not None and value.get("network") != network:
        raise InvalidAnnouncement("network", "an announcement is of another network: give all one secret")
    if topics is not None and not topics(text(value.get("topic"), _TOPIC, "topic")):
        raise InvalidAnnouncement("topic", "an announcement is for another topic")


def _to_wire(presence: Presence) -> dict[str, Any]:
    return {
        "v": VERSION,
        "network": presence.network,
        "topic": presence.topic,
        "workerId": presence.worker_id,
        "pubKey": presence.pub_key,
        "gpuClass": presence.gpu_class,
        "region": presence.region,
        "capacity": {"slots": presence.slots, "free": presence.free},
        "supported": [
            {"modelId": model.name, "version": model.version, "digest": model.digest, "state": model.state}
            for model in presence.supported
        ],
        "pools": list(presence.pools),
        "latencyHops": presence.latency_hops,
        "queueDepth": presence.queue_depth,
        "vram": {"total": presence.vram_total, "free": presence.vram_free},
        "tokensPerSecond": float(presence.tokens_per_second),
        "state": presence.state,
        "cacheManifest": manifest_to_wire(presence.cache),
        "softwareVersion": presence.software_version,
        "bootId": presence.boot_id,
        "bootCounter": presence.boot_counter,
        "sequence": presence.sequence,
        "nonce": presence.nonce,
        "issuedAt": presence.issued_at,
    }


_KEY = re.compile(r"[0-9a-f]{64}\Z")
_NONCE = re.compile(r"[0-9a-f]{32}\Z")
_PLACE = re.compile(PLACE_NAME.removesuffix("$") + r"\Z")
_MODEL_NAME = re.compile(r"[\x21-\x7e]{1,128}\Z")
_SHORT = re.compile(r"[\x20-\x7e]{0,64}\Z")
_TOPIC = re.compile(r"[\x21-\x7e]{1,640}\Z")
_POOL = re.compile(r"[a-z0-9.-]{1,128}\Z")
_FIELDS = frozenset(
    {
        *("v", "workerId", "pubKey", "gpuClass", "region", "capacity", "supported", "pools", "latencyHops"),
        *("queueDepth", "tokensPerSecond", "state", "softwareVersion", "bootId", "bootCounter", "sequence"),
        *("nonce", "issuedAt", "network", "topic", "vram", "cacheManifest"),
    }
)
_CAPACITY_FIELDS = frozenset({"slots", "free"})
_VRAM_FIELDS = frozenset({"total", "free"})
_MODEL_FIELDS = frozenset({"modelId", "version", "digest", "state"})


def _from_wire(value: dict[str, Any]) -> Presence:
    exactly(value, _FIELDS, "set of fields")
    capacity = exactly(value["capacity"], _CAPACITY_FIELDS, "capacity")
    vram = exactly(value["vram"], _VRAM_FIELDS, "vram")
    presence = Presence(
        network=text(value["network"], _NONCE, "network"),
        topic=text(value["topic"], _TOPIC, "topic"),
        pub_key=text(value["pubKey"], _KEY, "pubKey"),
        gpu_class=text(value["gpuClass"], _PLACE, "gpuClass"),
        region=text(value["region"], _PLACE, "region"),
        slots=count(capacity["slots"], "capacity"),
        free=count(capacity["free"], "capacity"),
        supported=tuple(_supported(item) for item in listed(value["supported"], MOST_MODELS, "supported")),
        pools=tuple(text(item, _POOL, "pools") for item in listed(value["pools"], MOST_POOLS, "pools")),
        latency_hops=count(value["latencyHops"], "latencyHops"),
        queue_depth=count(value["queueDepth"], "queueDepth"),
        vram_total=count(vram["total"], "vram"),
        vram_free=count(vram["free"], "vram"),
        tokens_per_second=rate(value["tokensPerSecond"], "tokensPerSecond"),
        state=one_of(WorkerState, value["state"], "state"),
        cache=manifest_from_wire(value["cacheManifest"], MOST_ARTIFACTS),
        software_version=text(value["softwareVersion"], _SHORT, "softwareVersion"),
        boot_counter=count(value["bootCounter"], "bootCounter"),
        sequence=count(value["sequence"], "sequence"),
        nonce=text(value["nonce"], _NONCE, "nonce"),
        issued_at=count(value["issuedAt"], "issuedAt"),
    )
    if presence.free > presence.slots:
        raise WrongField("capacity")
    worker = presence.worker_id
    if value["workerId"] != worker:
        raise WrongField("workerId")
    if value["bootId"] != boot_id(worker, presence.boot_counter):
        raise WrongField("bootId")
    return presence


def _supported(value: object) -> Supported:
    item = exactly(value, _MODEL_FIELDS, "supported")
    return Supported(
        name=text(item["modelId"], _MODEL_NAME, "modelId"),
        version=text(item["version"], _SHORT, "version"),
        digest=text(item["digest"], _KEY, "digest"),
        state=one_of(ModelState, item["state"], "supported"),
    )


def _refuse_constant(name: str) -> Never:
    raise ValueError(name)


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
