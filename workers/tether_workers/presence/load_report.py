"""Says in Redis which models a worker cannot load, and why, for operators who look."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence

from tether.broker.redis.connections import OUTAGE_ERRORS
from tether.discovery.over_redis.load_failures import TELL_SECONDS
from tether_workers.load_failures import LoadFailure
from tether_workers.served_models import ServedModel


class LoadReport:
    """Says it when it changes, and again and again for as long as a model cannot be loaded. Used by one
    thread."""

    def __init__(
        self,
        served: Sequence[ServedModel],
        failure_of: Callable[[str, str], LoadFailure | None],
        write: Callable[[Mapping[str, str]], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
          failure_of: Why a model, by name and version, cannot be loaded.
          write: Writes the reasons, by the names of models. May raise ``OUTAGE_ERRORS``.
          clock: Seconds.
        """
        self._served = tuple(served)
        self._failure_of = failure_of
        self._write = write
        self._clock = clock
        self._told: Mapping[str, str] = {}
        self._again_at = 0.0

    def tell(self) -> None:
        """Say what there is to say now. While Redis is away nothing is said, and later again."""
        reasons = {}
        for one in self._served:
            name, version = one.version.name, one.version.version
            if (failure := self._failure_of(name, version)) is not None:
                reasons[f"{name}@{version}"] = str(failure.error)
        is_known = reasons == self._told and (not reasons or self._clock() < self._again_at)
        if is_known:
            return
        with contextlib.suppress(*OUTAGE_ERRORS):
            self._write(reasons)
            self._told, self._again_at = reasons, self._clock() + TELL_SECONDS
