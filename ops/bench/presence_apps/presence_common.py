"""What this bench's processes have in common: workers by number, what they announce, and when they did."""

from __future__ import annotations

import functools
import hashlib
import json
import mmap
import os
import struct
import threading
import time
from pathlib import Path

from nacl.signing import SigningKey

from tether.config.loading import load_settings
from tether.config.settings import Settings
from tether.discovery.announcements.presence import (
    Artifact,
    ArtifactKind,
    ArtifactState,
    ModelState,
    Presence,
    Supported,
    WorkerState,
    manifest_of,
)
from tether.discovery.swarm.options import SwarmOptions
from tether.discovery.swarm.transport import SwarmTransport, TrustPolicy
from tether.discovery.topics import network_id, presence_topic
from tether.models.registry import pool_name

REGION, GPU_CLASS = "local", "cpu"
TOPIC = presence_topic(REGION)
_TIMES = struct.Struct("<qq")
_GIBIBYTE = 2**30


@functools.cache
def settings() -> Settings:
    """Those that the bench wrote."""
    return load_settings(environ=os.environ)


@functools.cache
def key_of(number: int) -> SigningKey:
    """The key of a worker of the bench: the same in every process."""
    return SigningKey(hashlib.blake2b(b"tether bench %d" % number, digest_size=32).digest())


def public_key_of(number: int) -> str:
    return key_of(number).verify_key.encode().hex()


def model_of(number: int, models: int) -> Supported:
    """What a worker serves, of so many models."""
    name = f"model-{number % models}"
    return Supported(name, "1", hashlib.sha256(name.encode()).hexdigest(), ModelState.WARM)


def pool_of(number: int, models: int) -> str:
    """The pool that a worker draws from."""
    return pool_name(GPU_CLASS, REGION, model_of(number, models))


def presence_of(
    number: int, sequence: int, models: int, network: str, state: WorkerState = WorkerState.SERVING
) -> Presence:
    """A worker's announcement: as long as that of one with one model."""
    model = model_of(number, models)
    artifact = Artifact(
        model.digest, ArtifactKind.MODEL, ArtifactState.WARM, 4 * _GIBIBYTE, True, 1_700_000_000_000
    )
    return Presence(
        network=network,
        topic=TOPIC,
        pub_key=public_key_of(number),
        gpu_class=GPU_CLASS,
        region=REGION,
        slots=8,
        free=5,
        supported=(model,),
        pools=(pool_of(number, models),),
        latency_hops=1,
        queue_depth=2,
        vram_total=80 * _GIBIBYTE,
        vram_free=70 * _GIBIBYTE,
        tokens_per_second=412.5,
        state=state,
        cache=manifest_of((artifact,)),
        software_version="0.1.0",
        boot_counter=1,
        sequence=sequence,
        nonce=os.urandom(16).hex(),
        issued_at=time.time_ns() // 1_000_000,
    )


def network_of(settings: Settings) -> str:
    """What the bench's network is called in signed messages."""
    return network_id(bytes.fromhex(settings.network.secret))


def transport_of(number: int, trusted: TrustPolicy) -> SwarmTransport:
    """A worker's own place in the swarm, not started."""
    options = SwarmOptions.from_settings(settings(), "worker")
    assert options is not None
    return SwarmTransport(options, key_of(number), trusted)


class Times:
    """When each worker announced itself first and last, in nanoseconds of the machine's monotonic clock.

    It is memory that processes share, and outlives those that are killed. 0 is never.
    """

    def __init__(self, file: Path, *, workers: int = 0) -> None:
        """
        Args:
          workers: How many; to make the file.
        """
        if workers:
            file.write_bytes(bytes(_TIMES.size * workers))
        with file.open("r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), 0)

    def of(self, number: int) -> tuple[int, int]:
        first, last = _TIMES.unpack_from(self._memory, number * _TIMES.size)
        return first, last

    def stamp(self, number: int) -> None:
        """It is about to announce itself."""
        now = time.monotonic_ns()
        _TIMES.pack_into(self._memory, number * _TIMES.size, self.of(number)[0] or now, now)

    def close(self) -> None:
        self._memory.close()


_saying = threading.Lock()


def say(**told: object) -> None:
    """Tell the bench, in one line."""
    with _saying:
        print(json.dumps(told, separators=(",", ":")), flush=True)
