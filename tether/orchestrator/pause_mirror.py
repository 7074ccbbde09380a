"""Keeps the paused pools in Redis as the database has them, where workers' draws look."""

from __future__ import annotations

from typing import Self

import redis

from tether.broker.pools.pools import Pools
from tether.broker.redis.connections import raise_if_refused
from tether.ids import PoolName
from tether.loops import IDLE
from tether.orchestrator.context import LoopContext
from tether.store.pool_pauses import pool_pauses
from tether.store.store import Store
from tether.telemetry import metrics
from tether.telemetry.logs import get_logger


class MirrorPauses:
    """One look: writes Redis where it differs, also where it is a new one. Workers of a pool that is resumed
    are woken by that."""

    def __init__(self, store: Store, pools: Pools) -> None:
        self._store = store
        self._pools = pools
        self._log = get_logger("tether.orchestrator")

    @classmethod
    def make(cls, context: LoopContext) -> Self:
        return cls(context.plane.store, context.plane.pools)

    def __call__(self) -> float:
        paused = self._store.read(pool_pauses).keys()
        metrics.PAUSED_POOLS.set(len(paused))
        if self._in_redis() != paused:
            added, removed = self._pools.set_paused(paused)
            self._log.info("Paused pools were written to Redis.", paused=added, resumed=removed)
        return IDLE

    def lapse(self) -> None:
        """Another orchestrator tells of them from here on."""
        metrics.PAUSED_POOLS.set(0)

    def _in_redis(self) -> set[PoolName] | None:
        """The pools that are paused there; None where what is there cannot be read."""
        try:
            return self._pools.paused()
        except redis.ResponseError as error:
            raise_if_refused(error)
            return None
