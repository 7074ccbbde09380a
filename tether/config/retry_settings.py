"""The section `retries`: what is never tried again, budgets of pools, and workers that fail."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from tether.config.types import (
    AtLeast,
    CommaSeparated,
    Expected,
    Milliseconds,
    Section,
    Share,
    as_milliseconds,
    as_tuple,
)

Pause = Annotated[
    int,
    Field(ge=1, le=3_600_000),
    BeforeValidator(as_milliseconds),
    Expected("a duration such as 30s, or an integer number of milliseconds, from 1 to 3600000"),
]


class RetrySettings(Section):
    """What is never tried again, how many retries a pool may have, and when a worker that fails is held."""

    RULES: ClassVar = (AtLeast("worker_max_pause", 1, "worker_pause"),)

    never: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,64}$")], ...],
        BeforeValidator(as_tuple),
        CommaSeparated(),
        Expected("a list of error codes: letters, digits and '_', at most 64 characters each"),
    ] = ()
    """Codes of errors after which no job is tried again, such as `model_damaged`; in the environment with
    commas between. A code stands for its subclasses, too. Errors that are not retryable never are."""
    budget: Share = 0.2
    """Retries that a pool may have for each first attempt that ended there, 0 to 1. More are delayed, never
    refused."""
    budget_per_second: Annotated[
        float, Field(ge=0.1, le=10_000, allow_inf_nan=False), Expected("a number from 0.1 to 10000")
    ] = 10.0
    """Retries a second that a pool may have besides, 0.1 to 10000."""
    budget_burst: Annotated[int, Field(ge=1, le=100_000), Expected("an integer from 1 to 100000")] = 100
    """Retries that a pool may save up, 1 to 100000."""
    budget_max_delay: Milliseconds = 300_000
    """Maximum time (ms) that a retry is delayed by its pool's budget."""
    worker_failures: Annotated[int, Field(ge=1, le=100), Expected("an integer from 1 to 100")] = 5
    """Different jobs in a row that a worker must fail in a pool, while others succeed there, to be held: it
    gets one job at a time, with growing pauses, until one succeeds. Where nobody succeeds twice as
    many, or several that failed three times each. 1 to 100."""
    worker_pause: Pause = 1_000
    """First pause (ms) of a worker that is held, up to an hour; it doubles with each job that fails."""
    worker_max_pause: Pause = 30_000
    """Longest pause (ms) of a worker that is held, up to an hour. At least `worker_pause`."""
