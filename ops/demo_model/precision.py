"""In which precision this machine's processor multiplies matrices quickly."""

from __future__ import annotations

import torch

__all__ = ["autocast"]

_HALF_IS_FAST = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
"""Whether bfloat16 is quick here. Below AVX-512, torch multiplies it element by element: six to twenty times
slower than single precision (read with AVX2 only)."""


def autocast() -> torch.autocast:
    """A context in which a model computes in bfloat16 where that is quick, else in single precision."""
    return torch.autocast("cpu", torch.bfloat16, enabled=_HALF_IS_FAST)
