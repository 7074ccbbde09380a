"""Which pool a job goes to, by the fleet as it is seen now and the depths that the database has claimed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from tether.config import SchedulingSettings
from tether.discovery.fleet.pool_views import PoolView
from tether.scheduling.affinity import Choice, choose, scorers_from
from tether.scheduling.filters import PlacementRequest
from tether.scheduling.models import ModelVersion, Registry
from tether.scheduling.scorer_plugins import load_scorers
from tether.store.holds import depths
from tether.store.store import Store

FRESH_SECONDS = 1.0
"""How old a depth may be that no claim of this process has told."""


class SeesPools(Protocol):
    """The fleet, as far as it is needed here."""

    def pools(self) -> tuple[PoolView, ...]: ...


class PoolChoice:
    """Filters and scores pools for jobs. Safe to use from many threads.

    Depths are what the claims in the database answered, so that several gateways do not all choose the pool
    that was empty a moment ago.
    """

    def __init__(
        self,
        fleet: SeesPools,
        registry: Registry,
        settings: SchedulingSettings,
        store: Store,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fleet = fleet
        self._registry = registry
        self._scorers = (*scorers_from(settings), *load_scorers())
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._depths: dict[str, int] = {}
        self._read_at = -FRESH_SECONDS

    def version_of(self, model: str) -> ModelVersion:
        """The version that a job for this model gets.

        Raises:
          UnknownModel: No such model is configured.
        """
        return self._registry.find(model)

    def choose(self, model: str, *, output_tokens: int = 256) -> str | None:
        """The best pool for a job, or None where none can serve it now."""
        request = PlacementRequest(model=self._registry.find(model), output_tokens=output_tokens)
        pool = self.explain(request).pool
        if pool is not None:
            # Until its claim is known: of many jobs at once, not all go to the pool that is empty now.
            with self._lock:
                self._depths[pool] = self._depths.get(pool, 0) + 1
        return pool

    def is_served(self, model: str) -> bool:
        """Whether there is a pool for a job now."""
        return self.explain(PlacementRequest(model=self._registry.find(model))).pool is not None

    def explain(self, request: PlacementRequest) -> Choice:
        """The choice with every pool's score, or why it was refused."""
        return choose(request, self._fleet.pools(), self._fresh_depths(), self._scorers)

    def note_depth(self, pool: str | None, depth: int) -> None:
        """Remember what a claim on a pool answered; 0 says nothing."""
        if pool is not None and depth > 0:
            with self._lock:
                self._depths[pool] = depth

    def _fresh_depths(self) -> dict[str, int]:
        now = self._clock()
        with self._lock:
            if now - self._read_at < FRESH_SECONDS:
                return self._depths
            self._read_at = now
        found = self._store.read(depths)
        with self._lock:
            self._depths = found
            return found
