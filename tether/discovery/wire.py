"""The announcement of a worker as bytes: signed, and read back with every field checked.

An envelope is an Ed25519 signature (RFC 8032, 64 bytes) and then the announcement as canonical JSON: keys
sorted, no white space, UTF-8. What is signed is :data:`DOMAIN` and then that JSON. This module alone knows
the names on the wire.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Never, TypeVar

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from tether.config_types import PLACE_NAME
from tether.errors import InvalidAnnouncement
from tether.jobs import canonical_json

VERSION = 1
DOMAIN = b"tether presence 1\0"
LARGEST_ENVELOPE = 16_384
"""Bytes that an envelope may have."""

MOST_MODELS = 256
MOST_POOLS = 64
_SIGNATURE_BYTES = 64
_LARGEST_NUMBER = 2**53 - 1


_Word = TypeVar("_Word", bound=StrEnum)


class WorkerState(StrEnum):
    """What a worker does with new jobs: takes them, takes no more, or is gone."""

    SERVING = "serving"
    DRAINING = "draining"
    STOPPED = "stopped"


class ModelState(StrEnum):
    """Whether a model is loaded, can be loaded, or is being loaded."""

    WARM = "warm"
    COLD = "cold"
    LOADING = "loading"


class Order(NamedTuple):
    """Of two announcements of one worker the one with the greater order is the newer."""

    boot_counter: int
    sequence: int


@dataclass(frozen=True)
class Supported:
    """A model that a worker can serve. ``modelId`` on the wire is ``name`` here."""

    name: str
    version: str
    digest: str
    state: ModelState


@dataclass(frozen=True, kw_only=True)
class Presence:
    """What a worker announces of itself.

    Attributes:
      pub_key: Its Ed25519 public key in hexadecimal. Its id is derived from it.
      gpu_class, region: Where it is.
      slots, free: Jobs that it can run at once, and how many more it could take now.
      supported: The models it can serve.
      pools: Names of the pools that it draws from.
      latency_hops: Whole 25 ms steps to the nearest orchestrator.
      queue_depth: Jobs that it holds and has not begun.
      tokens_per_second: As it measured; 0 where nothing is known.
      state: What it does with new jobs.
      software_version: Of Tether.
      boot_counter, sequence: The order of its announcements.
      nonce: 32 hexadecimal digits, of chance.
      issued_at: Milliseconds since the epoch by its own clock.
    """

    pub_key: str
    gpu_class: str
    region: str
    slots: int
    free: int
    supported: tuple[Supported, ...] = ()
    pools: tuple[str, ...] = ()
    latency_hops: int = 0
    queue_depth: int = 0
    tokens_per_second: float = 0.0
    state: WorkerState = WorkerState.SERVING
    software_version: str = ""
    boot_counter: int
    sequence: int
    nonce: str
    issued_at: int

    @property
    def worker_id(self) -> str:
        return worker_id(self.pub_key)

    @property
    def boot_id(self) -> str:
        return boot_id(self.worker_id, self.boot_counter)

    @property
    def order(self) -> Order:
        return Order(self.boot_counter, self.sequence)


def worker_id(pub_key: str) -> str:
    """The id of the worker with this public key: the first 16 hexadecimal digits of the key's BLAKE2b-512
    (RFC 7693)."""
    return hashlib.blake2b(bytes.fromhex(pub_key)).hexdigest()[:16]


def boot_id(worker: str, boot_counter: int) -> str:
    """Names one life of a worker's process."""
    return f"{worker}.{boot_counter}"


def sign(presence: Presence, key: SigningKey) -> bytes:
    """The envelope of an announcement.

    Raises:
      InvalidAnnouncement: No reader would take it; the reason is the one that readers would give.
    """
    if key.verify_key.encode().hex() != presence.pub_key:
        raise InvalidAnnouncement(
            "signature", "the announcement names another key than the one that signs it"
        )
    body = canonical_json(_to_wire(presence))
    if _SIGNATURE_BYTES + len(body) > LARGEST_ENVELOPE:
        raise InvalidAnnouncement(
            "size",
            f"the announcement has more than {LARGEST_ENVELOPE} bytes: serve fewer models on one worker",
        )
    try:
        _from_wire(json.loads(body))
    except _Wrong as error:
        raise InvalidAnnouncement("fields", f"the announcement's {error} is not valid") from None
    return key.sign(DOMAIN + body).signature + body


def verify(envelope: bytes, trusted: Callable[[str], bool]) -> Presence:
    """The announcement in an envelope, whose signer is trusted.

    Args:
      envelope: Any bytes.
      trusted: Answers whether announcements of a public key, in hexadecimal, count.

    Raises:
      InvalidAnnouncement: And nothing else, whatever the bytes. Its reason is ``size``, ``json``,
        ``version``, ``fields``, ``untrusted``, ``signature`` or ``canonical``.
    """
    if not _SIGNATURE_BYTES < len(envelope) <= LARGEST_ENVELOPE:
        raise InvalidAnnouncement(
            "size", f"an announcement of {len(envelope)} bytes is too short or too long"
        )
    signature, body = envelope[:_SIGNATURE_BYTES], envelope[_SIGNATURE_BYTES:]
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
    try:
        pub_key = _text(value.get("pubKey"), _KEY, "pubKey")
        if not trusted(pub_key):
            raise InvalidAnnouncement(
                "untrusted", f"the key of worker {worker_id(pub_key)} is not trusted: add it to trusted_keys"
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


def _to_wire(presence: Presence) -> dict[str, Any]:
    return {
        "v": VERSION,
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
        "tokensPerSecond": float(presence.tokens_per_second),
        "state": presence.state,
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
_POOL = re.compile(r"[a-z0-9.-]{1,128}\Z")
_FIELDS = frozenset(
    {
        *("v", "workerId", "pubKey", "gpuClass", "region", "capacity", "supported", "pools", "latencyHops"),
        *("queueDepth", "tokensPerSecond", "state", "softwareVersion", "bootId", "bootCounter", "sequence"),
        *("nonce", "issuedAt"),
    }
)
_MODEL_FIELDS = frozenset({"modelId", "version", "digest", "state"})


class _Wrong(Exception):
    """Names the field that is wrong."""


def _from_wire(value: dict[str, Any]) -> Presence:
    _exactly(value, _FIELDS, "set of fields")
    capacity = _exactly(value["capacity"], frozenset({"slots", "free"}), "capacity")
    presence = Presence(
        pub_key=_text(value["pubKey"], _KEY, "pubKey"),
        gpu_class=_text(value["gpuClass"], _PLACE, "gpuClass"),
        region=_text(value["region"], _PLACE, "region"),
        slots=_count(capacity["slots"], "capacity"),
        free=_count(capacity["free"], "capacity"),
        supported=tuple(_supported(item) for item in _list(value["supported"], MOST_MODELS, "supported")),
        pools=tuple(_text(item, _POOL, "pools") for item in _list(value["pools"], MOST_POOLS, "pools")),
        latency_hops=_count(value["latencyHops"], "latencyHops"),
        queue_depth=_count(value["queueDepth"], "queueDepth"),
        tokens_per_second=_rate(value["tokensPerSecond"]),
        state=_one_of(WorkerState, value["state"], "state"),
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


def _rate(value: object) -> float:
    if type(value) is not float or not math.isfinite(value) or value < 0:
        raise _Wrong("tokensPerSecond")
    return value


def _list(value: object, most: int, what: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise _Wrong(what)
    return value


def _one_of(kind: type[_Word], value: object, what: str) -> _Word:
    if not isinstance(value, str) or value not in list(kind):
        raise _Wrong(what)
    return kind(value)


def _refuse_constant(name: str) -> Never:
    raise ValueError(name)
