"""The section `breaker`: when the breaker of a model in a region opens, and when it closes."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from tether.config.types import AtLeast, Expected, Section, as_milliseconds

_Time = Annotated[
    int,
    Field(ge=100, le=86_400_000),
    BeforeValidator(as_milliseconds),
    Expected("a duration such as 30s, or an integer number of milliseconds, from 100 ms to a day"),
]


class BreakerSettings(Section):
    """When the circuit breaker of a model in a region opens, so that jobs go elsewhere, and closes."""

    RULES: ClassVar = (AtLeast("max_open_time", 1, "open_time"),)

    enabled: Annotated[bool, Expected("true or false")] = True
    """Whether breakers ever open."""
    window: _Time = 60_000
    """Milliseconds for which an attempt that ended counts, 100 ms to a day."""
    min_samples: Annotated[int, Field(ge=1, le=1_000), Expected("an integer from 1 to 1000")] = 20
    """Attempts in the window without which nothing is judged, 1 to 1000. No data never blocks."""
    error_rate: Annotated[float, Field(ge=0.01, le=1), Expected("a number from 0.01 to 1")] = 0.5
    """Share of the attempts that must fail to open it, 0.01 to 1: of all, and also without any one tenant and
    without any one worker, as long as there are others."""
    latency_factor: Annotated[float, Field(ge=1.1, le=1_000), Expected("a number from 1.1 to 1000")] = 3.0
    """It opens when the median time for a token is so many times the model's normal one in the region, 1.1 to
    1000. A full batch is slower for each job in it than an idle worker: leave room for that."""
    open_time: _Time = 10_000
    """Milliseconds that it stays open at first; twice as long with each probe that fails. 100 ms to a day."""
    max_open_time: _Time = 300_000
    """Milliseconds that it stays open at most, and after which one that has been closed begins anew with
    `open_time`. At least `open_time`."""
    probes: Annotated[int, Field(ge=1, le=100), Expected("an integer from 1 to 100")] = 1
    """Good probes, one after the other, that close it, 1 to 100."""
    probe_time: _Time = 60_000
    """Milliseconds after which a probe that nobody heard of is given up, and another job tries. Longer than a
    job mostly takes. 100 ms to a day."""
    baseline_time: _Time = 3_600_000
    """Milliseconds in which the normal speed follows a lasting change by about two thirds, 100 ms to a
    day."""
