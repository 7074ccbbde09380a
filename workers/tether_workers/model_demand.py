"""Which pools a worker draws from, and which models it loads for that: the thread ``tether-demand``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from tether.broker.pools.slots import Slots
from tether.broker.pools.worker_port import LoadAdvice, PoolReadiness, WorkerPort
from tether.broker.redis.connections import OUTAGE_ERRORS
from tether.ids import PoolName
from tether.loops import Loop, Outage
from tether.threads import STOP_SECONDS
from tether_workers.load_failures import (
    LONG_LOAD_SECONDS,
    MAX_LOAD_SECONDS,
    TRIES_BEFORE_TELLING,
    EngineKey,
    LoadFailure,
)
from tether_workers.loading import EngineLoader
from tether_workers.served_models import ServedModel

LOOK_SECONDS = 0.5
"""Between two looks at pools whose models are not loaded."""

WARM_LOOK_SECONDS = 5.0
"""The same where all are loaded: others need not be told oftener."""

TELLING_SECONDS = 1.5
"""For so long one draw of such jobs may begin after a failed load, longer than a consumer blocks: who else
takes them is known for no longer. The rest waits for the next try."""

FULL_SECONDS = 2.0
"""A worker whose slots are all taken leaves loading to those with free ones for so long; then it loads too,
or the jobs of a model that is loaded would keep all others out."""


def readiness_of(
    *,
    is_warm: bool,
    loading_seconds: float | None,
    failure: LoadFailure | None,
    told: int,
    is_telling: bool,
    was_told_again: bool,
    takes_jobs: bool,
    has_room: bool,
    now: float,
) -> PoolReadiness:
    """What a worker is for one of its pools.

    Args:
      loading_seconds: For how long its model has been being loaded; None where it is not.
      failure: Why the last try to load its model failed, where it did.
      told: At how many failed tries waiting jobs were told last.
      is_telling: Whether the next draw tells some.
      was_told_again: Whether the last advice was to ask again.
      takes_jobs: Whether it is neither cordoned nor stopping.
      has_room: Whether it has a free slot, or has had none for long.
      now: Monotonic seconds.
    """
    if not takes_jobs:
        return PoolReadiness.AWAY
    if is_warm:
        return PoolReadiness.WARM
    if loading_seconds is not None:
        if loading_seconds < LONG_LOAD_SECONDS:
            return PoolReadiness.LOADING
        if loading_seconds < MAX_LOAD_SECONDS:
            return PoolReadiness.SLOW
    if not has_room:
        return PoolReadiness.AWAY
    if (
        failure is not None
        and failure.tries >= TRIES_BEFORE_TELLING
        and failure.tries != told
        and not is_telling
    ):
        return PoolReadiness.FAILING
    if loading_seconds is not None or (failure is not None and (is_telling or now < failure.again_at)):
        return PoolReadiness.PAUSED
    return PoolReadiness.ASKED if was_told_again else PoolReadiness.COLD


@dataclass(frozen=True)
class _Telling:
    """That jobs are to fail at the next draw, if that begins before ``until``, after so many failed tries."""

    until: float
    tries: int


class ModelDemand:
    """Owns the thread ``tether-demand``, from :meth:`start` to :meth:`stop`.

    A worker draws for what it has loaded. What it has not, it loads where jobs wait and nobody who has loaded
    it has a free slot; it draws them then.

    Attributes:
      loop: That of the thread.
    """

    def __init__(
        self,
        port: WorkerPort,
        loader: EngineLoader,
        served: Sequence[ServedModel],
        *,
        slots: Slots,
        may_draw: Callable[[], bool] = lambda: True,
        report: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
          slots: Says whether the worker takes jobs, and how many more.
          may_draw: Whether the worker draws for its key. While another process does, this one says nothing.
          report: Called after each look; says what cannot be loaded.
          clock: Seconds; the loader's too.
        """
        self._port = port
        self._loader = loader
        self._served = tuple(served)
        self._slots = slots
        self._may_draw = may_draw
        self._report = report
        self._clock = clock
        self._asked_again: set[PoolName] = set()
        self._told: dict[PoolName, int] = {}
        self._telling: dict[PoolName, _Telling] = {}
        self._full_since: float | None = None
        log = structlog.stdlib.get_logger("tether.worker")
        self.loop = Loop(
            "demand",
            self._step,
            at_end=self._say_goodbye,
            outage=Outage(
                OUTAGE_ERRORS,
                log,
                begins="Which models to load cannot be asked. Continuing.",
                ends="Which models to load is asked again.",
            ),
            log=log,
        )

    def start(self) -> None:
        self.loop.start()

    def look(self) -> None:
        """Look now: a load has begun or ended."""
        self.loop.wake()

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """End the thread, waiting for that at most ``timeout`` seconds."""
        self.loop.stop(timeout)

    def pools(self) -> tuple[PoolName, ...]:
        """Names of the pools to draw from now, in one draw: one whose jobs are to be told is named once."""
        return tuple(one.pool for one in self._served if self._is_warm(one) or self._shall_tell(one.pool))

    def _shall_tell(self, pool: PoolName) -> bool:
        telling = self._telling.pop(pool, None)
        if telling is None or self._clock() >= telling.until:
            return False
        self._told[pool] = telling.tries
        return True

    def _is_warm(self, one: ServedModel) -> bool:
        return self._loader.is_warm(one.version.name, one.version.version)

    def _step(self) -> float:
        self._loader.warn_of_long_loads()
        self._report()
        self._look_for_room()
        if not self._may_draw():
            # What it said would count as said by the one that draws, where that has the same boot id.
            return LOOK_SECONDS
        reports = [(one.pool, self._readiness(one)) for one in self._served]
        advices = self._port.demand(reports)
        for one, (_, readiness), advice in zip(self._served, reports, advices, strict=True):
            self._take(one, readiness, advice)
        is_all_warm = all(readiness is PoolReadiness.WARM for _, readiness in reports)
        return WARM_LOOK_SECONDS if is_all_warm else LOOK_SECONDS

    def _look_for_room(self) -> None:
        if self._slots.free > 0:
            self._full_since = None
        elif self._full_since is None:
            self._full_since = self._clock()

    def _has_room(self) -> bool:
        return self._full_since is None or self._clock() - self._full_since >= FULL_SECONDS

    def _is_telling(self, pool: PoolName) -> bool:
        telling = self._telling.get(pool)
        return telling is not None and self._clock() < telling.until

    def _readiness(self, one: ServedModel) -> PoolReadiness:
        name, version = one.version.name, one.version.version
        return readiness_of(
            is_warm=self._is_warm(one),
            loading_seconds=self._loader.loading_seconds(name, version),
            failure=self._loader.failure_of(name, version),
            told=self._told.get(one.pool, 0),
            is_telling=self._is_telling(one.pool),
            was_told_again=one.pool in self._asked_again,
            takes_jobs=not self._slots.is_at_rest,
            has_room=self._has_room(),
            now=self._clock(),
        )

    def _take(self, one: ServedModel, readiness: PoolReadiness, advice: LoadAdvice) -> None:
        name, version = one.version.name, one.version.version
        self._asked_again.discard(one.pool)
        failure = self._loader.failure_of(name, version)
        tries = 0 if failure is None else failure.tries
        if readiness is PoolReadiness.WARM:
            self._told.pop(one.pool, None)
        elif readiness is PoolReadiness.FAILING and advice is not LoadAdvice.TELL:
            self._told[one.pool] = tries
        if advice is LoadAdvice.AGAIN:
            self._asked_again.add(one.pool)
        elif advice is LoadAdvice.LOAD:
            self._loader.begin_load(EngineKey(name, version))
        elif advice is LoadAdvice.TELL:
            # Not noted as told: where no draw comes in time, it is asked again.
            self._telling[one.pool] = _Telling(self._clock() + TELLING_SECONDS, tries)

    def _say_goodbye(self) -> None:
        if self._may_draw():
            self._port.demand([(one.pool, PoolReadiness.AWAY) for one in self._served])
