"""Brings jobs that are older than the index of labels into it, a few at a time."""

from __future__ import annotations

from typing import Self

from tether.loops import IDLE
from tether.orchestrator.context import LoopContext
from tether.store.job_labels import index_older_jobs, unindexed_up_to
from tether.store.store import Store
from tether.telemetry import metrics
from tether.telemetry.logs import get_logger

LABEL_INDEX = "label-index"
"""The name of the loop."""

BATCH = 100
"""Jobs that are looked at in one transaction. Each may have 32 labels."""

PAUSE_SECONDS = 0.05
"""Between two transactions. Whoever writes in another process to the same SQLite file gets in then."""


class IndexLabels:
    """Indexes the labels of older jobs, newest first, until none is left."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._is_at_it = False
        self._failures = metrics.ENTRIES_FAILED.labels(loop=LABEL_INDEX)
        self._log = get_logger("tether.orchestrator")

    @classmethod
    def make(cls, context: LoopContext) -> Self:
        return cls(context.plane.store)

    def __call__(self) -> float:
        if self._store.read(unindexed_up_to) is None:
            return IDLE
        if not self._is_at_it:
            self._log.info(
                "Indexing the labels of jobs from before the upgrade. Lists are complete meanwhile."
            )
            self._is_at_it = True
        indexed = self._store.write_alone(index_older_jobs, BATCH).result()
        for job_id, error in indexed.unreadable.items():
            self._failures.inc()
            self._log.error(
                "A job's labels cannot be read: no list finds it by them.", job=job_id, error=str(error)
            )
        if indexed.has_more:
            return PAUSE_SECONDS
        self._log.info("The labels of all jobs are indexed.")
        self._is_at_it = False
        return IDLE
