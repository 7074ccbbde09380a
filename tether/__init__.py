"""Tether: a task queue for model inference over GPUs anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tether.version import __version__

if TYPE_CHECKING:
    from tether.client.api import Tether as Tether
    from tether.client.async_api import AsyncTether as AsyncTether
    from tether.client.async_handles import AsyncJobHandle as AsyncJobHandle
    from tether.client.handles import JobHandle as JobHandle
    from tether.client.handles import Result as Result
    from tether.jobs import JobRequest as JobRequest
    from tether.jobs import JobState as JobState
    from tether.jobs import Sampling as Sampling

__all__ = [
    "AsyncJobHandle",
    "AsyncTether",
    "JobHandle",
    "JobRequest",
    "JobState",
    "Result",
    "Sampling",
    "Tether",
    "__version__",
]

_HOMES = {
    "Tether": "tether.client.api",
    "AsyncTether": "tether.client.async_api",
    "JobHandle": "tether.client.handles",
    "AsyncJobHandle": "tether.client.async_handles",
    "Result": "tether.client.handles",
    "JobRequest": "tether.jobs",
    "JobState": "tether.jobs",
    "Sampling": "tether.jobs",
}


def __getattr__(name: str) -> Any:
    # Loaded when used: the command line starts without them.
    if name not in _HOMES:
        raise AttributeError(f"module 'tether' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
