"""The options of the null engine: what ``[models.options]`` may hold for it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from tether.config.types import Expected, Section, as_milliseconds


class NullOptions(Section):
    """How many tokens, how fast, and after what wait.

    Attributes:
      tokens_per_second: For each job; 0 is as fast as possible.
      output_tokens: After how many it stops by itself; 0 is never, and is what counts where it is left out.
      load_time: Milliseconds that it takes to load, as a model would.
    """

    tokens_per_second: Annotated[
        float,
        Field(ge=0, le=1_000_000, allow_inf_nan=False),
        Expected("a number from 0 (as fast as possible) to 1000000"),
    ] = 0.0
    output_tokens: Annotated[int, Field(ge=1, le=1_000_000), Expected("an integer from 1 to 1000000")] = 0
    load_time: Annotated[
        int,
        Field(ge=0, le=600_000),
        BeforeValidator(as_milliseconds),
        Expected("a duration such as 500ms or 3s, or an integer number of milliseconds, from 0 to 600000"),
    ] = 0


OPTIONS = NullOptions
