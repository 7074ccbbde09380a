"""What a process knows of how many jobs pools have: what the database had a moment ago, and its own claims
since."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

from tether.discovery.fleet.pool_views import PoolView
from tether.ids import PoolName
from tether.scheduling.shared_depth import shared_depths
from tether.store.holds import depths
from tether.store.store import Store

FRESH_DEPTHS_SECONDS = 1.0
"""Maximum age of a depth that was not updated by a claim of this process."""


class SeesPools(Protocol):
    """The fleet, as far as it is needed here."""

    def pools(self) -> tuple[PoolView, ...]: ...


class PoolDepths(NamedTuple):
    """How many jobs pools have, by name; 0 where one is missing.

    Attributes:
      jobs: Those that have not ended.
      shared: Jobs of other pools that the workers of each have.
    """

    jobs: Mapping[PoolName, int] = MappingProxyType({})
    shared: Mapping[PoolName, float] = MappingProxyType({})


class KnownDepths:
    """Reads the depths at most once a second, however many jobs ask. Thread-safe."""

    def __init__(self, fleet: SeesPools, store: Store, clock: Callable[[], float]) -> None:
        """
        Args:
          fleet: Which pools share workers.
          clock: Seconds of a monotonic clock.
        """
        self._fleet = fleet
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._jobs: dict[PoolName, int] = {}
        self._shared: Mapping[PoolName, float] = {}
        self._read_at = -FRESH_DEPTHS_SECONDS

    @property
    def last(self) -> PoolDepths:
        """As they were read last, however long ago."""
        return PoolDepths(self._jobs, self._shared)

    def fresh(self) -> PoolDepths:
        """Not older than a second.

        Raises:
          StoreUnavailable: The database is unavailable.
        """
        now = self._clock()
        with self._lock:
            if now - self._read_at < FRESH_DEPTHS_SECONDS:
                return PoolDepths(self._jobs, self._shared)
            self._read_at = now
        return self._read()

    def read(self) -> PoolDepths:
        """Read them anew.

        Raises:
          StoreUnavailable: The database is unavailable.
        """
        with self._lock:
            self._read_at = self._clock()
        return self._read()

    def note(self, pool: PoolName, jobs: int) -> None:
        """A claim on a pool has returned so many."""
        with self._lock:
            self._jobs[pool] = jobs

    def add(self, pool: PoolName, jobs: int) -> None:
        """A pool is about to get, or to lose, so many: until it is known, others are to reckon with it."""
        with self._lock:
            self._jobs[pool] = self._jobs.get(pool, 0) + jobs

    def _read(self) -> PoolDepths:
        fresh = self._store.read(depths)
        shared = shared_depths(self._fleet.pools(), fresh)
        with self._lock:
            self._jobs, self._shared = fresh, shared
            return PoolDepths(fresh, shared)
