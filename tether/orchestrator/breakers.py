"""Judges the breakers by the attempts that ended lately: they open, let jobs try, and close."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

from tether.broker.redis.connections import OUTAGE_ERRORS
from tether.loops import IDLE
from tether.orchestrator.context import LoopContext
from tether.orchestrator.ended_probes import FreeProbes
from tether.orchestrator.set_aside import FailedEntries
from tether.scheduling.breaker import Breaker, BreakerName, BreakerState, judged_breaker
from tether.scheduling.breaker_words import why_opened
from tether.scheduling.shared_breakers import ReadBreaker, SharedBreakers
from tether.store.store import Store
from tether.telemetry import metrics
from tether.telemetry.logs import get_logger

BREAKERS = "breakers"
"""The name of the loop."""

BASELINE_WRITES_MS = 10_000
"""Between two writes of a baseline that has only followed a little."""

_LEVELS = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}


class JudgeBreakers:
    """One look at all breakers with attempts in the window, and at those that are not closed."""

    def __init__(self, store: Store, shared: SharedBreakers, *, now_ms: Callable[[], int]) -> None:
        """
        Args:
          now_ms: Milliseconds since the epoch, by Redis's clock.
        """
        self._shared = shared
        self._free_probes = FreeProbes(store, shared)
        self._now_ms = now_ms
        self._counted: frozenset[BreakerName] = frozenset()
        self._log = get_logger("tether.orchestrator")
        self._failed: FailedEntries[BreakerName] = FailedEntries(BREAKERS, self._log)

    @classmethod
    def make(cls, context: LoopContext) -> Self:
        return cls(context.plane.store, context.plane.breakers, now_ms=context.now_ms)

    def __call__(self) -> float:
        rules = self._shared.rules
        found = self._shared.read_all(self._now_ms() - 2 * rules.window_ms)
        told = self._shared.told()
        states: dict[BreakerName, BreakerState] = {}
        for read in found:
            try:
                states[read.name] = self._judge(read, told.get(read.name))
            except OUTAGE_ERRORS:
                raise
            except Exception as error:
                # What is wrong with one breaker is no reason not to judge the others.
                self._failed.fail(read.name, error, read.now)
            else:
                self._failed.succeed(read.name)
        self._count(states)
        self._free_probes(found)
        return IDLE

    def _judge(self, read: ReadBreaker, told: Breaker | None) -> BreakerState:
        after = judged_breaker(read.breaker, read.samples, self._shared.rules, read.now)
        if _is_worth_writing(read, after, told) and self._shared.write(read, after):
            self._tell(read, after)
        return after.state(read.now)

    def lapse(self) -> None:
        """Another orchestrator tells of them from here on."""
        self._count({})
        self._free_probes.forget()

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
    if abs(after.measured_at - before.measured_at) >= BASELINE_WRITES_MS:
        return True
    return (after.cause, after.since, after.trips) != (before.cause, before.since, before.trips) or (
        before.baseline == 0 < after.baseline
    )
