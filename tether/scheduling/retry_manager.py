"""The retry manager: what becomes of an attempt that ended, by policy, the job's own options and gates."""

from __future__ import annotations

import random
import secrets
import threading
from collections.abc import Callable, Sequence

from tether.config.settings import Settings
from tether.jobs import JobState
from tether.outcomes import Outcome, OutcomeKind, Verdict
from tether.scheduling.retry_budget import BudgetGate, BudgetRules
from tether.scheduling.retry_policy import POLICY_GATES, RetryGate, RetryPolicy, decide
from tether.store.rows import JobRow
from tether.telemetry import metrics

_ATTEMPTED = (OutcomeKind.SUCCEEDED, OutcomeKind.FAILED)


class RetryManager:
    """Decides whether and when a job is tried again. Thread-safe.

    A retry passes a row of gates, each of which may only delay it: the policy's backoff, what the failure
    asked for, the budget of the pool, and what else is given.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        now_ms: Callable[[], int],
        randomness: random.Random,
        budget: BudgetRules | None = None,
        gates: Sequence[RetryGate] = (),
    ) -> None:
        """
        Args:
          policy: Of jobs that ask for nothing else.
          now_ms: Milliseconds since the epoch.
          randomness: Of the backoff.
          budget: Of each pool.
          gates: More of them.
        """
        self._policy = policy
        self._now_ms = now_ms
        self._random = randomness
        self._budget = BudgetGate(budget or BudgetRules())
        self._gates = (*POLICY_GATES, self._budget, *gates)
        self._lock = threading.Lock()

    @classmethod
    def of(cls, settings: Settings, now_ms: Callable[[], int]) -> RetryManager:
        """The one that settings describe."""
        jobs, retries = settings.jobs, settings.retries
        return cls(
            RetryPolicy(jobs.max_attempts, jobs.retry_base, jobs.retry_cap, frozenset(retries.never)),
            now_ms=now_ms,
            randomness=random.Random(),
            budget=BudgetRules(
                share=retries.budget,
                per_second=retries.budget_per_second,
                burst=retries.budget_burst,
                max_delay_ms=retries.budget_max_delay,
            ),
        )

    def decide(self, outcome: Outcome, row: JobRow) -> Verdict:
        """What becomes of a job. The same outcome again takes nothing more of the budget."""
        now_ms = self._now_ms()
        with self._lock:
            if row.attempts == 0 and outcome.kind in _ATTEMPTED:
                self._budget.note_first(outcome.job_id, outcome.fence, row.pool, now_ms)
            verdict = decide(
                outcome,
                failed_before=row.attempts,
                requested=row.requested,
                policy=self._policy.for_job(
                    max_attempts=row.max_attempts, base_ms=row.retry_base_ms, retry_on=row.retry_on
                ),
                chance=self._random.random(),
                now_ms=now_ms,
                retry_token=secrets.token_urlsafe(16),
                pool=row.pool,
                gates=self._gates,
            )
        if verdict.state is JobState.WAITING_RETRY:
            metrics.RETRIES_PLANNED.labels(gate=verdict.waits_for).inc()
        return verdict
