"""The options of the null engine: what ``[models.options]`` may hold for it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tether.config.types import Expected, Section


class NullOptions(Section):
    """How many tokens, and how fast.

    Attributes:
      tokens_per_second: For each job; 0 is as fast as possible.
      output_tokens: After how many it stops by itself; 0 is never, and is what counts where it is left out.
    """

    tokens_per_second: Annotated[
        float,
        Field(ge=0, le=1_000_000, allow_inf_nan=False),
        Expected("a number from 0 (as fast as possible) to 1000000"),
    ] = 0.0
    output_tokens: Annotated[int, Field(ge=1, le=1_000_000), Expected("an integer from 1 to 1000000")] = 0


OPTIONS = NullOptions
