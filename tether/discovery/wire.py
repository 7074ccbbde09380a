"""The announcement of a worker as bytes: signed, and read back with every field checked.

An envelope is an Ed25519 signature (RFC 8032, 64 bytes) and then the announcement as canonical JSON: keys
sorted, no white space, UTF-8. What is signed is :data:`DOMAIN` and then that JSON. This module alone knows
the names on the wire.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from typing import Any, Never, TypeVar

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from tether.config_types import PLACE_NAME
from tether.discovery.presence import (
    Artifact,
    ArtifactKind,
    ArtifactState,
    CacheManifest,
    ModelState,
    Presence,
    Supported,
    WorkerState,
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
_LARGEST_NUMBER = 2**53 - 1


_Word = TypeVar("_Word", bound=StrEnum)


def sign(presence: Presence, key: SigningKey) -> bytes:
    """The envelope of an announcement. Of a cache manifest for which there is no room it has what is warm, or
    as much of that as fits.

    Raises:
      InvalidAnnouncement: No reader would take it; the reason is the one that readers would give.
    """
    if key.verify_key.encode().hex() != presence.pub_key:
        raise InvalidAnnouncement(
            "signature", "the announcement names another key than the one that signs it"
        )
    body = _body_that_fits(presence)
    try:
        _from_wire(json.loads(body))
    except _Wrong as error:
        raise InvalidAnnouncement("fields", f"the announcement's {error} is not valid") from None
    return key.sign(DOMAIN + body).signature + body


def _body_that_fits(presence: Presence) -> bytes:
    artifacts = presence.cache.artifacts
    warm = sum(artifact.state is ArtifactState.WARM for artifact in artifacts)
    most = min(len(artifacts), MOST_ARTIFACTS)
    while True:
        body = canonical_json(_to_wire(replace(presence, cache=cut_manifest(presence.cache, most))))
        if _SIGNATURE_BYTES + len(body) <= LARGEST_ENVELOPE:
            return body
        if most == 0:
            raise InvalidAnnouncement(
                "size",
                f"the announcement has more than {LARGEST_ENVELOPE} bytes: serve fewer models on one worker",
            )
        most = warm if most > warm else most // 2


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
        raise InvalidAnnouncement(
            "size", f"an announcement of {len(envelope)} bytes is too short or too long"
        )
    signature, body = envelope[:_SIGNATURE_BYTES], envelope[_SIGNATURE_BYTES:]
    value = _object_in(body)
    try:
        _refuse_elsewhere(value, network, topics)
        pub_key = _text(value.get("pubKey"), _KEY, "pubKey")
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
    except _Wrong as error:
        raise InvalidAnnouncement("fields", f"an announcement's {error} is not valid") from None
    except UnicodeEncodeError:
        raise InvalidAnnouncement("canonical", "an announcement has text that is no Unicode") from None
    return presence


def _object_in(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body.decode(), parse_constant=_refuse_constant)
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
    if topics is not None and not topics(_text(value.get("topic"), _TOPIC, "topic")):
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
        "cacheManifest": _manifest_to_wire(presence.cache),
        "softwareVersion": presence.software_version,
        "bootId": presence.boot_id,
        "bootCounter": presence.boot_counter,
        "sequence": presence.sequence,
        "nonce": presence.nonce,
        "issuedAt": presence.issued_at,
    }


def _manifest_to_wire(manifest: CacheManifest) -> dict[str, Any]:
    return {
        "digest": manifest.digest,
        "complete": manifest.is_complete,
        "artifacts": [
            {
                "digest": artifact.digest,
                "kind": artifact.kind,
                "state": artifact.state,
                "bytes": artifact.size,
                "pinned": artifact.pinned,
                "lastUse": artifact.last_use,
            }
            for artifact in manifest.artifacts
        ],
    }


_KEY = re.compile(r"[0-9a-f]{64}\Z")
_NONCE = re.compile(r"[0-9a-f]{32}\Z")
_PLACE = re.compile(PLACE_NAME.removesuffix("$") + r"\Z")
_MODEL_NAME = re.compile(r"[\x21-\x7e]{1,128}\Z")
_SHORT = re.compile(r"[\x20-\x7e]{0,64}\Z")
_TOPIC = re.compile(r"[\x21-\x7e]{1,512}\Z")
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
_MANIFEST_FIELDS = frozenset({"digest", "complete", "artifacts"})
_ARTIFACT_FIELDS = frozenset({"digest", "kind", "state", "bytes", "pinned", "lastUse"})
_MODEL_FIELDS = frozenset({"modelId", "version", "digest", "state"})


class _Wrong(Exception):
    """Names the field that is wrong."""


def _from_wire(value: dict[str, Any]) -> Presence:
    _exactly(value, _FIELDS, "set of fields")
    capacity = _exactly(value["capacity"], _CAPACITY_FIELDS, "capacity")
    vram = _exactly(value["vram"], _VRAM_FIELDS, "vram")
    presence = Presence(
        network=_text(value["network"], _NONCE, "network"),
        topic=_text(value["topic"], _TOPIC, "topic"),
        pub_key=_text(value["pubKey"], _KEY, "pubKey"),
        gpu_class=_text(value["gpuClass"], _PLACE, "gpuClass"),
        region=_text(value["region"], _PLACE, "region"),
        slots=_count(capacity["slots"], "capacity"),
        free=_count(capacity["free"], "capacity"),
        supported=tuple(_supported(item) for item in _list(value["supported"], MOST_MODELS, "supported")),
        pools=tuple(_text(item, _POOL, "pools") for item in _list(value["pools"], MOST_POOLS, "pools")),
        latency_hops=_count(value["latencyHops"], "latencyHops"),
        queue_depth=_count(value["queueDepth"], "queueDepth"),
        vram_total=_count(vram["total"], "vram"),
        vram_free=_count(vram["free"], "vram"),
        tokens_per_second=_rate(value["tokensPerSecond"]),
        state=_one_of(WorkerState, value["state"], "state"),
        cache=_manifest(value["cacheManifest"]),
        software_version=_text(value["softwareVersion"], _SHORT, "softwareVersion"),
        boot_counter=_count(value["bootCounter"], "bootCounter"),
        sequence=_count(value["sequence"], "sequence"),
        nonce=_text(value["nonce"], _NONCE, "nonce"),
        issued_at=_count(value["issuedAt"], "issuedAt"),
    )
    if presence.free > presence.slots:
        raise _Wrong("capacity")
    if value["workerId"] != presence.worker_id:
        raise _Wrong("workerId")
    if value["bootId"] != presence.boot_id:
        raise _Wrong("bootId")
    return presence


def _supported(value: object) -> Supported:
    item = _exactly(value, _MODEL_FIELDS, "supported")
    return Supported(
        name=_text(item["modelId"], _MODEL_NAME, "modelId"),
        version=_text(item["version"], _SHORT, "version"),
        digest=_text(item["digest"], _KEY, "digest"),
        state=_one_of(ModelState, item["state"], "supported"),
    )


def _manifest(value: object) -> CacheManifest:
    item = _exactly(value, _MANIFEST_FIELDS, "cacheManifest")
    artifacts = _list(item["artifacts"], MOST_ARTIFACTS, "cacheManifest")
    return CacheManifest(
        artifacts=tuple(_artifact(one) for one in artifacts),
        digest=_text(item["digest"], _KEY, "cacheManifest"),
        is_complete=_flag(item["complete"], "cacheManifest"),
    )


def _artifact(value: object) -> Artifact:
    item = _exactly(value, _ARTIFACT_FIELDS, "cacheManifest")
    return Artifact(
        digest=_text(item["digest"], _KEY, "cacheManifest"),
        kind=_one_of(ArtifactKind, item["kind"], "cacheManifest"),
        state=_one_of(ArtifactState, item["state"], "cacheManifest"),
        size=_count(item["bytes"], "cacheManifest"),
        pinned=_flag(item["pinned"], "cacheManifest"),
        last_use=_count(item["lastUse"], "cacheManifest"),
    )


def _exactly(value: object, names: frozenset[str], what: str) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() != names:
        raise _Wrong(what)
    return value


def _text(value: object, form: re.Pattern[str], what: str) -> str:
    if not isinstance(value, str) or form.match(value) is None:
        raise _Wrong(what)
    return value


def _count(value: object, what: str) -> int:
    if type(value) is not int or not 0 <= value <= _LARGEST_NUMBER:
        raise _Wrong(what)
    return value


def _flag(value: object, what: str) -> bool:
    if not isinstance(value, bool):
        raise _Wrong(what)
    return value


def _rate(value: object) -> float:
    if type(value) is not float or not math.isfinite(value) or value < 0:
        raise _Wrong("tokensPerSecond")
    return value


def _list(value: object, most: int, what: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise _Wrong(what)
    return value


def _one_of(kind: type[_Word], value: object, what: str) -> _Word:
    found = kind._value2member_map_.get(value) if isinstance(value, str) else None
    if not isinstance(found, kind):
        raise _Wrong(what)
    return found


def _refuse_constant(name: str) -> Never:
    raise ValueError(name)
