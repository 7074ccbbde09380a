"""The outbox relay: carries out placements that nobody else has carried out."""

from __future__ import annotations

from collections.abc import Callable

from tether.broker.pools import Placed, Pools
from tether.orchestrator.loop import until
from tether.scheduling.dispatches import dispatch_of
from tether.scheduling.endings import Ending
from tether.store.placements import DueDispatch, due, next_due, record_placed
from tether.store.requests import Request
from tether.store.store import Store
from tether.telemetry import metrics

BATCH = 256


class RelayOutbox:
    """Places due dispatches in the pool that their row names: it carries out a choice and makes none."""

    name = "outbox"

    def __init__(
        self, store: Store, pools: Pools, ending: Ending, *, interval: float, now_ms: Callable[[], int]
    ) -> None:
        self._store = store
        self._pools = pools
        self._ending = ending
        self._interval = interval
        self._now_ms = now_ms

    def __call__(self) -> float:
        now_ms = self._now_ms()
        rows = self._store.read(due, now_ms, BATCH)
        self._ending.end(
            [Request(None, row.job_id, row.requested, now_ms) for row in rows if row.requested is not None]
        )
        self._place([row for row in rows if row.requested is None])
        if len(rows) == BATCH:
            return 0
        return until(self._store.read(next_due), self._now_ms(), self._interval)

    def _place(self, rows: list[DueDispatch]) -> None:
        if not rows:
            return
        answers = self._pools.place([dispatch_of(row, row.dispatch, row.pool) for row in rows])
        placed = [
            (row.job_id, row.dispatch)
            for row, answer in zip(rows, answers, strict=True)
            if answer in (Placed.PLACED, Placed.KNOWN)
        ]
        metrics.DISPATCHES_RELAYED.inc(len(placed))
        for future in self._store.write_many(record_placed, placed):
            future.result()
