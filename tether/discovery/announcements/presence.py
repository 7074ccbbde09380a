"""What a worker announces of itself: the values, without how they are written."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from tether.discovery.topics import network_id, presence_topic
from tether.ids import BootId, PoolName, WorkerId
from tether.jobs import canonical_json

LATENCY_STEP_MS = 25
"""Milliseconds of round trip that make one latency hop."""

MAX_SAFE_INTEGER = 2**53 - 1
"""The largest that every JSON reader keeps exact (RFC 8259, section 6)."""

MAX_IDS_KEPT = 65_536

MAX_SLOTS = 4_096
MAX_QUEUE_DEPTH = 1_000_000
MAX_LATENCY_HOPS = 2_400
"""A round trip of a minute."""

MAX_TOKENS_PER_SECOND = 1e8
MAX_LOAD_SECONDS = 86_400
MAX_MEMORY_BYTES = 2**50
"""What no worker has; an announcement of more is not believed."""

ISSUE_WINDOW_MS = 600_000
"""How far a worker's clock may be from the reader's."""


class WorkerState(StrEnum):
    """What a worker does with new jobs.

    Values:
      SERVING: It takes them.
      CORDONED: It takes no more; what it runs goes on.
      DRAINING: It takes no more, and hands over what does not end in time.
      DISCONNECTED: It would take them, and cannot reach Redis, where they wait.
      STOPPED: It is gone.
    """

    SERVING = "serving"
    CORDONED = "cordoned"
    DRAINING = "draining"
    DISCONNECTED = "disconnected"
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


@dataclass(frozen=True, slots=True)
class Supported:
    """A model that a worker can serve. ``modelId`` on the wire is ``name`` here.

    Attributes:
      load_seconds: What it took to load it the last time; 0 where it never was.
    """

    name: str
    version: str
    digest: str
    state: ModelState
    load_seconds: float = 0.0


class ArtifactKind(StrEnum):
    """What an artifact is."""

    MODEL = "model"
    ADAPTER = "adapter"


class ArtifactState(StrEnum):
    """Where a worker has an artifact: on its disk, loaded, or between the two."""

    DISK = "disk"
    LOADING = "loading"
    WARM = "warm"


class Artifact(NamedTuple):
    """A model or adapter that a worker has.

    Attributes:
      digest: 64 hexadecimal digits.
      size: Bytes on its disk; 0 where it has none there.
      last_use: Milliseconds since the epoch by the worker's clock; 0 for never.
    """

    digest: str
    kind: ArtifactKind
    state: ArtifactState
    size: int = 0
    pinned: bool = False
    last_use: int = 0


@dataclass(frozen=True, slots=True)
class CacheManifest:
    """What a worker has, or the part of it that fits an announcement.

    Attributes:
      artifacts: Those told of.
      digest: Of the list of all, see :func:`manifest_of`.
      is_complete: Whether all are told of.
    """

    artifacts: tuple[Artifact, ...] = ()
    digest: str = ""
    is_complete: bool = True


def manifest_of(artifacts: tuple[Artifact, ...]) -> CacheManifest:
    """The complete manifest. Its digest is the BLAKE2b-256 of the list as canonical JSON, so that two
    manifests can be compared where one tells of a part only."""
    text = canonical_json([list(artifact) for artifact in artifacts])
    return CacheManifest(artifacts, hashlib.blake2b(text, digest_size=32).hexdigest())


def cut_manifest(manifest: CacheManifest, most: int) -> CacheManifest:
    """The manifest with at most so many artifacts, the warm ones first; its digest stays that of all."""
    if len(manifest.artifacts) <= most:
        return manifest
    warm_first = sorted(manifest.artifacts, key=lambda artifact: artifact.state is not ArtifactState.WARM)
    return CacheManifest(tuple(warm_first[:most]), manifest.digest, is_complete=False)


NOTHING_CACHED = manifest_of(())
NO_NETWORK = network_id(b"")
"""What announcements name that are made without a network's secret."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Presence:
    """What a worker announces of itself.

    Attributes:
      network: What the network is called, see :func:`~tether.discovery.topics.network_id`.
      topic: Where this is announced. On a model's topic, ``supported`` and ``pools`` are of that alone.
      pub_key: Its Ed25519 public key in hexadecimal. Its id is derived from it.
      gpu_class, region: Where it is.
      slots, free: Jobs that it can run at once, and how many more it could take now.
      supported: The models it can serve.
      pools: Names of the pools that it draws from.
      latency_hops: Whole 25 ms steps to the nearest orchestrator.
      queue_depth: Jobs that it holds and has not begun.
      vram_total, vram_free: Bytes of its GPU's memory; 0 where it has none.
      tokens_per_second: Decoded by all slots together, from what it measured; 0 where nothing is known.
      prefill_tokens_per_second: Read of one prompt, from what it measured; 0 where nothing is known.
      state: What it does with new jobs.
      cache: The artifacts that it has.
      software_version: Of Tether.
      boot_counter, sequence: The order of its announcements.
      nonce: 32 hexadecimal digits, of chance.
      issued_at: Milliseconds since the epoch by its own clock.
    """

    network: str = NO_NETWORK
    topic: str = presence_topic("local")
    pub_key: str
    gpu_class: str
    region: str
    slots: int
    free: int
    supported: tuple[Supported, ...] = ()
    pools: tuple[PoolName, ...] = ()
    latency_hops: int = 0
    queue_depth: int = 0
    vram_total: int = 0
    vram_free: int = 0
    tokens_per_second: float = 0.0
    prefill_tokens_per_second: float = 0.0
    state: WorkerState = WorkerState.SERVING
    cache: CacheManifest = NOTHING_CACHED
    software_version: str = ""
    boot_counter: int
    sequence: int
    nonce: str
    issued_at: int

    @property
    def worker_id(self) -> WorkerId:
        return worker_id(self.pub_key)

    @property
    def boot_id(self) -> BootId:
        return boot_id(self.worker_id, self.boot_counter)

    @property
    def order(self) -> Order:
        return Order(self.boot_counter, self.sequence)


@lru_cache(MAX_IDS_KEPT)
def worker_id(pub_key: str) -> WorkerId:
    """The id of the worker with this public key: the first 16 hexadecimal digits of the key's BLAKE2b-512
    (RFC 7693)."""
    return WorkerId(hashlib.blake2b(bytes.fromhex(pub_key)).hexdigest()[:16])


def boot_id(worker: WorkerId, boot_counter: int) -> BootId:
    """Names one life of a worker's process."""
    return BootId(f"{worker}.{boot_counter}")


def latency_hops(round_trip_ms: float | None) -> int:
    """Whole steps of 25 ms in a round trip; 0 where none is known."""
    return 0 if round_trip_ms is None else int(round_trip_ms // LATENCY_STEP_MS)


def announced_seconds(seconds: float | None) -> float:
    """A time that was measured, as it is announced: with two digits, so that most announcements of a worker
    and of its like say the same. 0 where there is none."""
    return 0.0 if seconds is None else float(f"{min(max(seconds, 0.001), MAX_LOAD_SECONDS):.2g}")


def clock_error(presence: Presence, now_ms: int) -> int | None:
    """How many milliseconds the worker's clock is ahead of the reader's, where that is too much to count.

    Args:
      now_ms: Milliseconds since the epoch by the reader's clock.
    """
    ahead = presence.issued_at - now_ms
    return ahead if abs(ahead) > ISSUE_WINDOW_MS else None
