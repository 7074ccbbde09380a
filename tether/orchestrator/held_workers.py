"""Tells operators of workers that are held from pools, since they fail what others do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Self

import redis

from tether.broker.keys import Keys
from tether.discovery.fleet.held_back import HeldPool
from tether.discovery.over_redis.worker_health import read_held_pools
from tether.ids import PoolName, WorkerId
from tether.loops import IDLE
from tether.orchestrator.context import LoopContext
from tether.telemetry import metrics
from tether.telemetry.logs import get_logger

HELD_WORKERS = "held-workers"
"""The name of the loop."""


class TellOfHeldWorkers:
    """One look: counts held workers by pool, and logs when one is held, and when it is no more."""

    def __init__(
        self, client: redis.Redis, keys: Keys, live_workers: Callable[[], Sequence[WorkerId]]
    ) -> None:
        """
        Args:
          live_workers: The workers that announce themselves.
        """
        self._client = client
        self._keys = keys
        self._live_workers = live_workers
        self._known: Mapping[tuple[WorkerId, PoolName], HeldPool] = {}
        self._counted: frozenset[PoolName] = frozenset()
        self._log = get_logger("tether.orchestrator")

    @classmethod
    def make(cls, context: LoopContext) -> Self:
        plane = context.plane
        return cls(plane.pools.client, plane.keys, lambda: sorted(plane.fleet.fleet.members))

    def lapse(self) -> None:
        """Another orchestrator looks from here on: what this one saw is no longer told."""
        self._known = {}
        self._count(Counter())

    def __call__(self) -> float:
        live = self._live_workers()
        found = read_held_pools(self._client, self._keys, live)
        held = {(worker, pool.pool): pool for worker, pools in found.items() for pool in pools}
        for (worker, name), pool in held.items():
            if (worker, name) not in self._known:
                self._log.warning("A worker is held.", worker=worker, pool=name, why=pool.in_words())
        for worker, name in self._known.keys() - held.keys():
            if worker in live:
                self._log.info("A worker is held no longer.", worker=worker, pool=name)
        self._known = held
        self._count(Counter(name for _, name in held))
        return IDLE

    def _count(self, counts: Counter[PoolName]) -> None:
        for name in self._counted | counts.keys():
            metrics.HELD_WORKERS.labels(pool=name).set(counts[name])
        self._counted = frozenset(counts)
