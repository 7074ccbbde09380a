"""Judges the breakers by the attempts that ended lately: they open, let jobs try, and close."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

from tether.loops import IDLE
from tether.orchestrator.context import LoopContext
from tether.scheduling.breaker import Breaker, BreakerName, BreakerState, judged_breaker
from tether.scheduling.breaker_words import why_opened
from tether.scheduling.shared_breakers import ReadBreaker, SharedBreakers
from tether.telemetry import metrics
from tether.telemetry.logs import get_logger

BREAKERS = "breakers"
"""The name of the loop."""

BASELINE_WRITES_MS = 10_000
"""Between two writes of a baseline that has only followed a little."""

_LEVELS = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}


class JudgeBreakers:
    """One look at all breakers with attempts in the window, and at those that are not closed."""

    def __init__(self, shared: SharedBreakers, *, now_ms: Callable[[], int]) -> None:
        """
        Args:
          now_ms: Milliseconds since the epoch, by Redis's clock.
        """
        self._shared = shared
        self._now_ms = now_ms
        self._counted: frozenset[BreakerName] = frozenset()
        self._log = get_logger("tether.orchestrator")

    @classmethod
    def make(cls, context: LoopContext) -> Self:
        return cls(context.plane.breakers, now_ms=context.now_ms)

    def __call__(self) -> float:
        rules = self._shared.rules
        found = self._shared.read_all(self._now_ms() - 2 * rules.window_ms)
        told = self._shared.told()
        states: dict[BreakerName, BreakerState] = {}
        for read in found:
            after = judged_breaker(read.breaker, read.samples, rules, read.now)
            states[read.name] = after.state(read.now)
            if _is_worth_writing(read, after, told.get(read.name)) and self._shared.write(read, after):
                self._tell(read, after)
        self._count(states)
        return IDLE

    def lapse(self) -> None:
        """Another orchestrator tells of them from here on."""
        self._count({})

    def _count(self, states: Mapping[BreakerName, BreakerState]) -> None:
        for name in self._counted | states.keys():
            level = _LEVELS[states.get(name, BreakerState.CLOSED)]
            metrics.BREAKER_STATES.labels(model=name.full_model, region=name.region).set(level)
        self._counted = frozenset(states)

    def _tell(self, read: ReadBreaker, after: Breaker) -> None:
        model, region = read.name.full_model, read.name.region
        if after.cause is None:
            if read.breaker.cause is not None:
                self._log.info("A circuit breaker has closed.", model=model, region=region)
            return
        if after.trips == read.breaker.trips and read.breaker.cause is not None:
            return
        metrics.BREAKER_TRIPS.labels(model=model, region=region, cause=after.cause).inc()
        open_ms = after.until - read.now
        if read.breaker.cause is None:
            self._log.warning(
                "A circuit breaker has opened.",
                model=model,
                region=region,
                why=why_opened(after),
                open_ms=open_ms,
            )
        else:
            self._log.warning(
                "A circuit breaker stays open: a job that tried failed, or was slow.",
                model=model,
                region=region,
                open_ms=open_ms,
            )


def _is_worth_writing(read: ReadBreaker, after: Breaker, told: Breaker | None) -> bool:
    if read.record.kept is None and after == read.breaker and told is None:
        return False
    # What readers are told may be lost by itself, and so may what is kept.
    if told != (None if after.cause is None else after):
        return True
    before = read.breaker
    if after.measured_at - before.measured_at >= BASELINE_WRITES_MS:
        return True
    return (after.cause, after.since, after.trips) != (before.cause, before.since, before.trips) or (
        before.baseline == 0 < after.baseline
    )
