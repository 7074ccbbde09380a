"""Removes what nobody needs any more: settled outcomes in Redis, jobs that ended long ago, old entries of the
audit log, what was used long ago."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from tether.broker.pools.outcomes import Outcomes
from tether.loops import IDLE
from tether.orchestrator.context import PASSING_ERRORS, LoopContext
from tether.orchestrator.set_aside import FailedEntries
from tether.store.audit import count_audit, prune_audit
from tether.store.holds import sweep_holds
from tether.store.pruning import prunable_jobs, prune
from tether.store.spending_sweeps import prune_spending, sweep_spending
from tether.store.store import Store
from tether.store.usage import prune_usage
from tether.telemetry import metrics
from tether.telemetry.logs import get_logger

BATCH = 64
"""Jobs that are deleted in one transaction."""

AUDIT_BATCH = 1_000
AUDIT_BATCHES = 20
"""Entries of the audit log that are deleted in one transaction, and such transactions in one step."""

USAGE_BATCH = 500
USAGE_BATCHES = 100
"""Rows of usage that are deleted in one transaction, and such transactions in one step."""

PAUSE_SECONDS = 0.05
"""Between two transactions. Whoever writes in another process to the same SQLite file gets in then."""

TRIM_MS = 5_000
SWEEP_MS = 300_000
"""Times between two trims of the outcomes, and two comparisons of holds with their jobs: while old jobs are
deleted, steps follow each other much faster."""


class Prune:
    """Trims the stream of outcomes up to what is settled, frees orphaned holds, deletes old jobs, old entries
    of the audit log and what tenants used long ago."""

    def __init__(
        self,
        store: Store,
        outcomes: Outcomes,
        *,
        retention_ms: int | None,
        audit_retention_ms: int | None = None,
        usage_retention_ms: int | None = None,
        now_ms: Callable[[], int],
    ) -> None:
        """
        Args:
          retention_ms: Age from their end at which jobs are deleted that have no shorter time of their own;
            None is never.
          audit_retention_ms: Age at which entries of the audit log are; None is never.
          usage_retention_ms: Age at which what tenants used in a day is; None is never.
        """
        self._store = store
        self._outcomes = outcomes
        self._retention_ms = retention_ms
        self._audit_retention_ms = audit_retention_ms
        self._usage_retention_ms = usage_retention_ms
        self._now_ms = now_ms
        self._trimmed_at = 0
        self._swept_at = now_ms()
        self._has_old_entries = True
        self._passed_over = 0
        self._log = get_logger("tether.orchestrator")
        self._failed: FailedEntries[str] = FailedEntries("pruning", self._log)

    @classmethod
    def make(cls, context: LoopContext) -> Self:
        plane = context.plane
        outcomes = Outcomes(context.client, plane.keys, context.holder)
        context.closing.callback(outcomes.close)
        return cls(
            plane.store,
            outcomes,
            retention_ms=plane.settings.jobs.retention,
            audit_retention_ms=plane.settings.database.audit_retention,
            usage_retention_ms=plane.settings.database.usage_retention,
            now_ms=context.now_ms,
        )

    def __call__(self) -> float:
        now_ms = self._now_ms()
        # Each by itself: what keeps one from being done keeps no other.
        if now_ms - self._trimmed_at >= TRIM_MS:
            self._try("outcomes", self._outcomes.trim, now_ms)
            self._trimmed_at = now_ms
        if now_ms - self._swept_at >= SWEEP_MS:
            self._try("holds", self._sweep, now_ms)
            self._try("spending", self._sweep_spending, now_ms)
            self._try("usage", self._prune_usage, now_ms)
            self._has_old_entries = True
            self._swept_at = now_ms
        if self._has_old_entries:
            # A flood of entries grows old as fast as it was written: what is left is for the next step.
            self._try("audit log", self._prune_audit, now_ms)
        older_than_ms = 0 if self._retention_ms is None else now_ms - self._retention_ms
        return self._prune(older_than_ms, now_ms)

    def _try(self, what: str, carry_out: Callable[[], None], now_ms: int) -> None:
        if not self._failed.is_due(what, now_ms):
            return
        try:
            carry_out()
        except PASSING_ERRORS:
            raise
        except Exception as error:
            self._failed.fail(what, error, now_ms, what=what)
        else:
            self._failed.succeed(what, what=what)

    def _sweep(self) -> None:
        self._report(self._store.write_alone(sweep_holds).result())

    def _sweep_spending(self) -> None:
        self._report(self._store.write_alone(sweep_spending).result())

    def _report(self, freed: int) -> None:
        if freed:
            self._log.error(
                "Holds without an open job were released: something else wrote to this database.",
                count=freed,
            )

    def _prune_usage(self) -> None:
        if self._usage_retention_ms is None:
            return
        oldest_ms = self._now_ms() - self._usage_retention_ms
        for _ in range(USAGE_BATCHES):
            used = self._store.write_alone(prune_usage, oldest_ms, USAGE_BATCH).result()
            spent = self._store.write_alone(prune_spending, oldest_ms, USAGE_BATCH).result()
            if used == spent == 0:
                break

    def _prune_audit(self) -> None:
        self._has_old_entries = self._audit_retention_ms is not None and self._prune_entries(
            self._now_ms() - self._audit_retention_ms
        )
        metrics.AUDIT_ENTRIES.set(self._store.read(count_audit))

    def _prune_entries(self, older_than_ms: int) -> bool:
        """Delete old entries; return whether there may be more."""
        return all(
            self._store.write_alone(prune_audit, older_than_ms, AUDIT_BATCH).result() == AUDIT_BATCH
            for _ in range(AUDIT_BATCHES)
        )

    def _prune(self, older_than_ms: int, now_ms: int) -> float:
        """Delete a batch of old jobs. What cannot be deleted is passed over until the last was looked at."""
        job_ids = self._store.read(prunable_jobs, older_than_ms, BATCH, self._passed_over, now_ms=now_ms)
        due = [job_id for job_id in job_ids if self._failed.is_due(job_id, now_ms)]
        kept = len(job_ids) - len(due)
        for job_id, answer in zip(due, self._store.write_each(prune, due), strict=True):
            if isinstance(answer, Exception):
                kept += 1
                self._failed.fail(job_id, answer, now_ms, job=job_id)
            else:
                self._failed.succeed(job_id, job=job_id)
        if len(job_ids) < BATCH:
            self._passed_over = 0
            return IDLE
        self._passed_over += kept
        return PAUSE_SECONDS
