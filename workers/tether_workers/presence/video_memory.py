"""The memory of this process's GPU."""

from __future__ import annotations

import sys
from typing import NamedTuple


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
