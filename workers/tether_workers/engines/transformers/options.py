"""The options of the transformers engine: what ``[models.options]`` may hold for it.

The configuration reads this wherever it is loaded: nothing heavy may be imported here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from tether.config.types import Expected, Section


class TransformersOptions(Section):
    """Where a model runs, and in which numbers.

    Attributes:
      dtype: Of weights and computation; ``auto`` is single precision on CPUs, else what the weights have.
      device: ``auto`` is a GPU where there is one.
    """

    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Expected("one of auto, float32, bfloat16, float16"),
    ] = "auto"
    device: Annotated[Literal["auto", "cpu", "cuda"], Expected("one of auto, cpu, cuda")] = "auto"


OPTIONS = TransformersOptions
