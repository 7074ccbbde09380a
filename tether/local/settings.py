"""What a local Tether's parts are set to: what its user set, and for the rest what fits a state folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tether.config.settings import MODELS, Settings
from tether.local.gpus import Gpu
from tether.local.state_folder import StateFolder

DRAIN_MS = 5_000
"""How long jobs may go on after Ctrl-C: they are kept, and go on at the same token with the next start."""

REQUESTS_MS = 3_000
"""How long requests may go on after that: no worker is there any more, and clients come back."""


@dataclass(frozen=True)
class WorkerPlace:
    """Where one worker runs.

    Attributes:
      environ: What its process has in its environment for that.
      shown: The place in words.
    """

    environ: Mapping[str, str]
    shown: str


def local_overrides(
    settings: Settings, folder: StateFolder, socket: Path, models: Sequence[Mapping[str, Any]] | None
) -> dict[str, str]:
    """The variables that the parts have beside the user's own. What the user set stays.

    Args:
      socket: Where the private Redis server listens.
      models: Those to serve; None for the configured ones.
    """
    fitting = {
        "redis.url": f"unix://{quote(str(socket))}?db=0",
        "database.url": f"sqlite:///{folder.database}",
        "presence.identity_dir": str(folder.identity),
        "gateway.drain_timeout": str(REQUESTS_MS),
        "worker.drain_timeout": str(DRAIN_MS),
        "worker.shutdown_timeout": str(DRAIN_MS),
    }
    overrides = {variable(key): value for key, value in fitting.items() if settings.is_default(key)}
    if models is not None:
        overrides[variable(MODELS)] = json.dumps(list(models))
    return overrides


def stopped_overrides(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables for who looks after a `tether up` that does not run: its database, where ``TETHER_DIR``
    names a state folder that has one, and no other database is set."""
    if not (named := environ.get("TETHER_DIR")) or not settings.is_default("database.url"):
        return {}
    database = StateFolder(Path(named).absolute()).database
    return {variable("database.url"): f"sqlite:///{database}"} if database.exists() else {}


def worker_places(
    settings: Settings, gpus: Sequence[Gpu], count: int | None, *, on_cpu: bool = False
) -> tuple[WorkerPlace, ...]:
    """Where the workers run: one on each GPU, else ``worker.processes`` on the CPU.

    Args:
      count: So many, sharing the GPUs in turn; 0 for none; None to let the machine decide.
      on_cpu: Whether the GPUs are left alone.
    """
    if on_cpu or not gpus:
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if on_cpu else {}
        return (WorkerPlace(hidden, "on the CPU"),) * (settings.worker.processes if count is None else count)
    chosen = [gpus[number % len(gpus)] for number in range(len(gpus) if count is None else count)]
    return tuple(_on_gpu(gpu, settings) for gpu in chosen)


def _on_gpu(gpu: Gpu, settings: Settings) -> WorkerPlace:
    environ = {"CUDA_VISIBLE_DEVICES": gpu.device}
    if settings.is_default("worker.gpu_class"):
        environ[variable("worker.gpu_class")] = gpu.gpu_class
    return WorkerPlace(environ, f"on GPU {gpu.device} ({gpu.gpu_class})")


def variable(key: str) -> str:
    """The environment variable of a setting."""
    return f"TETHER_{key.upper().replace('.', '__')}"
