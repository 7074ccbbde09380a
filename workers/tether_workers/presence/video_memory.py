"""The memory of this process's GPU."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from typing import NamedTuple

DRIVER_SECONDS = 10.0
"""How long the driver's program is waited for."""

_BYTES_PER_MIB = 2**20


class VideoMemory(NamedTuple):
    """Bytes; both 0 where this process uses no GPU."""

    total: int = 0
    free: int = 0


def video_memory() -> VideoMemory:
    """What there is and what is free now, of the GPU that this process has begun to use.

    Asking makes no process use a GPU, nor load what it would need for that.
    """
    # Another thread may be loading it just now.
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    is_initialized = getattr(cuda, "is_initialized", None)
    if cuda is None or is_initialized is None or not is_initialized():
        return VideoMemory()
    try:
        free, total = cuda.mem_get_info()
    except RuntimeError:
        # A GPU that fails must not silence the worker: its jobs tell what is wrong.
        return VideoMemory()
    return VideoMemory(int(total), int(free))


def driver_memory(environ: Mapping[str, str]) -> VideoMemory:
    """The same of the first GPU that a program with these variables would see, as the driver tells it.

    A process that has not begun to use its GPU learns so what it has; nothing is kept on the GPU for that. It
    starts `nvidia-smi`, once (developer.nvidia.com/system-management-interface), and is 0 where there is none
    or it does not tell.
    """
    program = shutil.which("nvidia-smi", path=environ.get("PATH"))
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if program is None or visible == "":
        return VideoMemory()
    command = [program, "--query-gpu=memory.total,memory.free", "--format=csv,noheader,nounits"]
    if visible is not None:
        command += ["-i", visible.split(",")[0].strip()]
    try:
        told = subprocess.run(
            command, capture_output=True, text=True, timeout=DRIVER_SECONDS, check=True, env=dict(environ)
        )
        total, free = (int(part) for part in told.stdout.splitlines()[0].split(","))
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return VideoMemory()
    return VideoMemory(total * _BYTES_PER_MIB, free * _BYTES_PER_MIB)
