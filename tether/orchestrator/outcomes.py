"""The outcome loop: settles in the database what ended in Redis, then seals it there."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Sequence

from tether.broker.outcomes import Entry, Outcomes
from tether.broker.pools import Pools
from tether.errors import StoreUnavailable
from tether.jobs import JobState, Outcome, OutcomeKind
from tether.scheduling.retry_policy import RetryPolicy, decide
from tether.scheduling.verdict import Verdict
from tether.store.rows import JobRow
from tether.store.settlements import Settle, Settled, SettledKind, Settlement
from tether.store.store import Store
from tether.telemetry import metrics
from tether.telemetry.logs import get_logger

BATCH = 256
WAIT_MS = 1_000
CLAIM_AFTER_MS = 10_000
"""How long another orchestrator may have an outcome in hand before it counts as dead."""

_HAVE_TOKENS = (OutcomeKind.SUCCEEDED, OutcomeKind.CANCELLED, OutcomeKind.EXPIRED, OutcomeKind.FAILED)


class SettleOutcomes:
    """Reads outcomes, settles them together, acknowledges after the commit, and seals what is final.

    Settling is unique by job and fence, so that it does not matter how often or in which order they come.
    """

    name = "outcomes"

    def __init__(
        self,
        store: Store,
        pools: Pools,
        outcomes: Outcomes,
        *,
        policy: RetryPolicy,
        life_ms: int,
        now_ms: Callable[[], int],
        on_waiting: Callable[[], None],
        randomness: random.Random,
    ) -> None:
        """
        Args:
          policy: Whether failed jobs are tried again.
          life_ms: How long Redis keeps jobs that ended.
          now_ms: Milliseconds since the epoch.
          on_waiting: Called when jobs were settled that wait to be placed again.
          randomness: Of the backoff.
        """
        self._store = store
        self._pools = pools
        self._outcomes = outcomes
        self._policy = policy
        self._life_ms = life_ms
        self._now_ms = now_ms
        self._on_waiting = on_waiting
        self._random = randomness
        # Made once: the store brings together what has the same operation.
        self._settle = Settle(self._decide)
        self._claimed_at = 0
        self._has_failed = False
        self._log = get_logger("tether.orchestrator")

    def __call__(self) -> float:
        now_ms = self._now_ms()
        # What was in hand when a step failed is not read again by itself. That others may have it in hand in
        # this moment does no harm.
        if self._has_failed or now_ms - self._claimed_at >= CLAIM_AFTER_MS:
            claimed = self._outcomes.claim(BATCH, 0 if self._has_failed else CLAIM_AFTER_MS)
            self._has_failed = True
            self._carry(*claimed)
            self._claimed_at = now_ms
        self._has_failed = True
        self._carry(*self._outcomes.read(BATCH, WAIT_MS))
        self._has_failed = False
        return 0

    def _carry(self, entries: Sequence[Entry], unreadable: Sequence[str]) -> None:
        if unreadable:
            self._log.error("Outcomes that cannot be read are left out.", entries=list(unreadable))
            self._outcomes.acknowledge(unreadable)
        if not entries:
            return
        now_ms = self._now_ms()
        have_tokens = [e for e in entries if e.outcome.kind in _HAVE_TOKENS and e.outcome.offset]
        filled = {e.entry_id: e for e in self._outcomes.with_pieces(have_tokens)} if have_tokens else {}
        entries = [filled.get(entry.entry_id, entry) for entry in entries]
        futures = self._store.write_many(self._settle, [Settlement(e.outcome, now_ms) for e in entries])
        settled, done = [], []
        failures: list[Exception] = []
        for entry, future in zip(entries, futures, strict=True):
            try:
                settled.append(future.result())
                done.append(entry.entry_id)
            except StoreUnavailable as error:
                failures.append(error)
            except Exception as error:
                # It stays with the group, holds up nobody else, and is tried again with what is claimed.
                self._log.error("An outcome cannot be settled.", job=entry.outcome.job_id, error=str(error))
        # Sealed first: whoever is ended between the two settles again, which seals again.
        self._seal(settled)
        self._outcomes.acknowledge(done)
        if failures:
            raise failures[0]
        for answer in settled:
            metrics.OUTCOMES_SETTLED.labels(answer=answer.kind).inc()
        if any(answer.state in (JobState.WAITING_RETRY, JobState.PARKED) for answer in settled):
            self._on_waiting()

    def _decide(self, outcome: Outcome, row: JobRow) -> Verdict:
        return decide(
            outcome,
            failed_before=row.attempts,
            requested=row.requested,
            policy=self._policy,
            chance=self._random.random(),
            now_ms=self._now_ms(),
            retry_token=secrets.token_urlsafe(16),
        )

    def _seal(self, settled: Sequence[Settled]) -> None:
        final = {
            answer.job_id: (answer.state, answer.error.code if answer.error else "")
            for answer in settled
            if answer.kind is not SettledKind.UNKNOWN and answer.state is not None and answer.state.is_final
        }
        why = {answer.job_id: answer.error.message for answer in settled if answer.error is not None}
        sealed = [(job, state, code) for job, (state, code) in final.items()]
        self._pools.seal_many(sealed, self._life_ms, why)
