"""The models and adapters that a worker has, for its heartbeats and its cache manifest."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tether.config.settings import ModelSettings
from tether.discovery.announcements.presence import Artifact, ArtifactKind, ArtifactState
from tether_workers import demo_model
from tether_workers.served_models import ServedModel

DEMO, HUB = "demo", "hf:"


@dataclass(frozen=True)
class ArtifactUse:
    """What a loader knows of one model with one adapter, or without.

    Attributes:
      is_warm, is_loading: Whether it is loaded, or being loaded.
      last_use: Milliseconds since the epoch; 0 for never.
    """

    is_warm: bool = False
    is_loading: bool = False
    last_use: int = 0


class CacheReport:
    """Describes the artifacts of a worker. Safe to use from many threads.

    What lies on disk is looked at once: it does not change while a worker runs.
    """

    def __init__(self, served: Sequence[ServedModel], use_of: Callable[[str, str, str], ArtifactUse]) -> None:
        """
        Args:
          use_of: Returns what is known of a model's name, version and adapter, which may be empty.
        """
        self._served = tuple(served)
        self._use_of = use_of
        self._lock = threading.Lock()
        self._sizes: dict[tuple[str, str, str], int] = {}

    def artifacts(self) -> tuple[Artifact, ...]:
        """Everything that is loaded, is being loaded, or lies on this machine's disk."""
        artifacts = []
        for model in self._served:
            name, version, settings = model.version.name, model.version.version, model.settings
            uses = [
                (adapter, self._use_of(name, version, adapter)) for adapter in ("", *settings.adapter_names)
            ]
            for adapter, use in uses:
                size = self._size(settings, adapter)
                state = state_of(use)
                if state is ArtifactState.DISK and size == 0:
                    continue
                kind = ArtifactKind.ADAPTER if adapter else ArtifactKind.MODEL
                digest = adapter_digest(settings, adapter) if adapter else model.version.digest
                artifacts.append(Artifact(digest, kind, state, size, settings.pinned, use.last_use))
        return tuple(artifacts)

    def _size(self, settings: ModelSettings, adapter: str) -> int:
        key = (settings.name, settings.version, adapter)
        with self._lock:
            if key not in self._sizes:
                self._sizes[key] = size_on_disk(local_path(settings, adapter))
            return self._sizes[key]


def state_of(use: ArtifactUse) -> ArtifactState:
    if use.is_warm:
        return ArtifactState.WARM
    return ArtifactState.LOADING if use.is_loading else ArtifactState.DISK


def adapter_digest(settings: ModelSettings, adapter: str) -> str:
    """Names an adapter by where it comes from: 64 hexadecimal digits."""
    source = "\0".join((settings.source, adapter, settings.adapter_source(adapter)))
    return hashlib.blake2b(source.encode(), digest_size=32).hexdigest()


def local_path(settings: ModelSettings, adapter: str) -> Path | None:
    """Where a model or one of its adapters lies on this machine; None where it does not."""
    source = settings.adapter_source(adapter) if adapter else settings.source
    if settings.source == DEMO and source in ("", DEMO):
        return demo_model.adapter_folder(adapter) if adapter else demo_model.folder()
    return None if not source or source.startswith(HUB) else Path(source)


def size_on_disk(local: Path | None) -> int:
    """Bytes of all files there; 0 where there are none."""
    if local is None:
        return 0
    try:
        if local.is_file():
            return local.stat().st_size
        return sum(path.stat().st_size for path in local.rglob("*") if path.is_file())
    except OSError:
        return 0
