"""Says in Redis which models a worker cannot load, and why, for operators who look."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence

from tether.broker.redis.connections import OUTAGE_ERRORS
from tether.discovery.over_redis.load_failures import TELL_SECONDS
from tether_workers.load_failures import TRIES_BEFORE_TELLING, LoadFailure
from tether_workers.served_models import ServedModel


class LoadReport:
    """Says it when it changes, and again and again for as long as a model cannot be loaded. Used by one
    thread."""

    def __init__(
        self,
        served: Sequence[ServedModel],
        failure_of: Callable[[str, str], LoadFailure | None],
        write: Callable[[Mapping[str, str], Mapping[str, bool]], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
          failure_of: Why a model, by name and version, cannot be loaded.
          write: Writes the reasons, by the names of models, and of those that failed again and again whether
            a try may begin now. May raise ``OUTAGE_ERRORS``.
          clock: Seconds.
        """
        self._served = tuple(served)
        self._failure_of = failure_of
        self._write = write
        self._clock = clock
        # What a former process of this worker said may stand yet.
        self._told: tuple[Mapping[str, str], Mapping[str, bool]] | None = None
        self._again_at = 0.0

    def tell(self) -> None:
        """Say what there is to say now. While Redis is away nothing is said, and later again."""
        now, reasons, without_hope = self._clock(), {}, {}
        for one in self._served:
            name, version = one.version.name, one.version.version
            if (failure := self._failure_of(name, version)) is not None:
                reasons[f"{name}@{version}"] = str(failure.error)
                if failure.tries >= TRIES_BEFORE_TELLING:
                    without_hope[f"{name}@{version}"] = now >= failure.again_at
        told = reasons, without_hope
        if told == self._told and (not reasons or now < self._again_at):
            return
        with contextlib.suppress(*OUTAGE_ERRORS):
            self._write(*told)
            self._told, self._again_at = told, self._clock() + TELL_SECONDS
