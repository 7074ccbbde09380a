"""Announcements and cache manifests as they stand in JSON: their fields, and what each may hold.

Canonical JSON has no white space, its keys are sorted, and there is one way to write each value: what would
be written with other bytes than it was read from is not canonical.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from tether.discovery.announcements.presence import (
    MAX_LATENCY_HOPS,
    MAX_LOAD_SECONDS,
    MAX_MEMORY_BYTES,
    MAX_QUEUE_DEPTH,
    MAX_SAFE_INTEGER,
    MAX_SLOTS,
    MAX_TOKENS_PER_SECOND,
    Artifact,
    ArtifactKind,
    ArtifactState,
    CacheManifest,
    ModelState,
    Supported,
    WorkerState,
)
from tether.errors import InvalidAnnouncement
from tether.ids import BootId, PoolName, WorkerId
from tether.requests.needs import PLACE_NAME

MAX_MODELS = 256
MAX_POOLS = 64
MAX_ANNOUNCED_ARTIFACTS = 512
"""Artifacts in an announcement; an answer with all of them may have more."""

MAX_SHARED = 16_384
"""Models that are one object in the announcements of all workers."""

Count = Annotated[int, Meta(ge=0, le=MAX_SAFE_INTEGER)]
Slots = Annotated[int, Meta(ge=0, le=MAX_SLOTS)]
Bytes = Annotated[int, Meta(ge=0, le=MAX_MEMORY_BYTES)]
Rate = Annotated[float, Meta(ge=0, le=MAX_TOKENS_PER_SECOND)]
KnownRate = Annotated[float, Meta(gt=0, le=MAX_TOKENS_PER_SECOND)]
KnownSeconds = Annotated[float, Meta(gt=0, le=MAX_LOAD_SECONDS)]
Hex32 = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
Hex64 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
AnnouncedWorkerId = Annotated[WorkerId, Meta(pattern=r"^[0-9a-f]{16}\Z")]
AnnouncedBootId = Annotated[BootId, Meta(pattern=r"^[0-9a-f]{16}\.[0-9]{1,16}\Z")]
Place = Annotated[str, Meta(pattern=PLACE_NAME.removesuffix("$") + r"\Z")]
Topic = Annotated[str, Meta(pattern=r"^[\x21-\x7e]{1,640}\Z")]
ModelName = Annotated[str, Meta(pattern=r"^[\x21-\x7e]{1,128}\Z")]
AnnouncedPool = Annotated[PoolName, Meta(pattern=r"^[a-z0-9.-]{1,128}\Z")]
Short = Annotated[str, Meta(pattern=r"^[\x20-\x7e]{0,64}\Z")]


class _Object(Struct, frozen=True, forbid_unknown_fields=True, rename="camel", gc=False):
    """A JSON object with exactly these fields, of which those that may be unset are left out then. It holds
    no cycles, so it is spared the garbage collector."""


class ModelFields(_Object, frozen=True):
    model_id: ModelName
    version: Short
    digest: Hex64
    state: ModelState
    load_seconds: KnownSeconds | UnsetType = UNSET


class ArtifactFields(_Object, frozen=True):
    digest: Hex64
    kind: ArtifactKind
    state: ArtifactState
    bytes: Count
    pinned: bool
    last_use: Count


class ManifestFields(_Object, frozen=True):
    digest: Hex64
    complete: bool
    artifacts: tuple[ArtifactFields, ...]


class CapacityFields(_Object, frozen=True):
    slots: Slots
    free: Slots


class MemoryFields(_Object, frozen=True):
    total: Bytes
    free: Bytes


class AnnouncementFields(_Object, frozen=True, kw_only=True):
    v: int
    network: Hex32
    topic: Topic
    worker_id: AnnouncedWorkerId
    pub_key: Hex64
    gpu_class: Place
    region: Place
    capacity: CapacityFields
    supported: Annotated[tuple[ModelFields, ...], Meta(max_length=MAX_MODELS)]
    pools: Annotated[tuple[AnnouncedPool, ...], Meta(max_length=MAX_POOLS)]
    latency_hops: Annotated[int, Meta(ge=0, le=MAX_LATENCY_HOPS)]
    queue_depth: Annotated[int, Meta(ge=0, le=MAX_QUEUE_DEPTH)]
    vram: MemoryFields
    tokens_per_second: Rate
    prefill_tokens_per_second: KnownRate | UnsetType = UNSET
    state: WorkerState
    cache_manifest: ManifestFields
    software_version: Short
    boot_id: AnnouncedBootId
    boot_counter: Count
    sequence: Count
    nonce: Hex32
    issued_at: Count


class WholeManifestFields(_Object, frozen=True, kw_only=True):
    v: int
    network: Hex32
    pub_key: Hex64
    boot_id: AnnouncedBootId
    cache_manifest: ManifestFields
    issued_at: Count


class _Version(Struct):
    v: Any = None


encode = msgspec.json.Encoder(order="sorted").encode
"""Canonical JSON of fields."""

_decode_version = msgspec.json.Decoder(_Version).decode
_PLACE_IN_ERROR = re.compile(r"`\$\.(\w+)")
_NAMES = frozenset(AnnouncementFields.__struct_encode_fields__)
_Fields = TypeVar("_Fields", AnnouncementFields, WholeManifestFields)


def read_fields(
    decode: Callable[[bytes], _Fields], body: bytes, versions: Sequence[int], what: str
) -> _Fields:
    """The fields of a message of one of these versions.

    Args:
      decode: Of a decoder of msgspec.
      versions: Those that are read, in their order.
      what: The message, for the error.

    Raises:
      InvalidAnnouncement: The reason is ``json``, ``version`` or ``fields``.
    """
    try:
        fields = decode(body)
    except msgspec.ValidationError as error:
        # Other versions have other fields.
        if _version_in(body, versions[-1]) not in versions:
            raise _other_version(versions, what) from None
        raise wrong_field(_field_in(str(error)), what) from None
    except (ValueError, RecursionError):
        raise InvalidAnnouncement("json", f"{what} is not JSON") from None
    if fields.v not in versions:
        raise _other_version(versions, what)
    return fields


def _field_in(error: str) -> str:
    # An error quotes the message: only names of ours are repeated.
    place = _PLACE_IN_ERROR.search(error)
    return place[1] if place and place[1] in _NAMES else "set of fields"


def _version_in(body: bytes, unknown: int) -> object:
    try:
        version = _decode_version(body).v
    except (ValueError, RecursionError):
        return unknown
    return version if type(version) is int else None


def _other_version(versions: Sequence[int], what: str) -> InvalidAnnouncement:
    read = " or ".join(map(str, versions))
    why = f"{what} is not of version {read}: update its worker, or this program if that is older"
    return InvalidAnnouncement("version", why)


def wrong_field(field: str, what: str) -> InvalidAnnouncement:
    return InvalidAnnouncement("fields", f"{what}'s {field} is not valid")


def manifest_to_fields(manifest: CacheManifest) -> ManifestFields:
    return ManifestFields(
        manifest.digest,
        manifest.is_complete,
        tuple(
            ArtifactFields(one.digest, one.kind, one.state, one.size, one.pinned, one.last_use)
            for one in manifest.artifacts
        ),
    )


def manifest_from_fields(fields: ManifestFields) -> CacheManifest:
    return CacheManifest(tuple(map(_artifact_from_fields, fields.artifacts)), fields.digest, fields.complete)


def _artifact_from_fields(fields: ArtifactFields) -> Artifact:
    return Artifact(fields.digest, fields.kind, fields.state, fields.bytes, fields.pinned, fields.last_use)


@lru_cache(MAX_SHARED)
def model_from_fields(fields: ModelFields) -> Supported:
    seconds = known_or_0(fields.load_seconds)
    return Supported(fields.model_id, fields.version, fields.digest, fields.state, seconds)


def known_or_0(value: float | UnsetType) -> float:
    """What was measured; 0 where it is left out."""
    return 0.0 if value is UNSET else value


def known_or_unset(value: float) -> float | UnsetType:
    """What was measured; to be left out where it is 0."""
    return float(value) if value else UNSET
