"""Removes what nobody needs any more: settled outcomes in Redis, and old jobs where that is asked for."""

from __future__ import annotations

from collections.abc import Callable

from tether.broker.outcomes import Outcomes
from tether.store.holds import sweep_holds
from tether.store.pruning import prune
from tether.store.store import Store
from tether.telemetry.logs import get_logger

BATCH = 500
INTERVAL_SECONDS = 5.0
SWEEP_EVERY = 60
"""Holds are compared with their jobs in every so-manieth step."""


class Prune:
    """Trims the stream of outcomes up to what is settled, frees orphaned holds, deletes old jobs."""

    name = "pruning"

    def __init__(
        self, store: Store, outcomes: Outcomes, *, retention_ms: int | None, now_ms: Callable[[], int]
    ) -> None:
        """
        Args:
          retention_ms: Age from their end at which jobs are deleted; None is never.
        """
        self._store = store
        self._outcomes = outcomes
        self._retention_ms = retention_ms
        self._now_ms = now_ms
        self._steps = 0
        self._log = get_logger("tether.orchestrator")

    def __call__(self) -> float:
        self._outcomes.trim()
        self._steps += 1
        if self._steps % SWEEP_EVERY == 0:
            freed = self._store.write_alone(sweep_holds).result()
            if freed:
                self._log.error(
                    "Holds without an open job were freed: something else wrote here.", count=freed
                )
        if self._retention_ms is None:
            return INTERVAL_SECONDS
        older_than = self._now_ms() - self._retention_ms
        return 0 if self._store.write_alone(prune, older_than, BATCH).result() == BATCH else INTERVAL_SECONDS
