"""What follows an attempt that ended: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from tether.deaths import evidence_of_deaths
from tether.errors import codes_above
from tether.ids import JobId, PoolName
from tether.jobs import JobError, JobState
from tether.outcomes import Fence, Letter, Outcome, OutcomeKind, Verdict
from tether.scheduling.lost_pools import pause_after

POISON = "poison"
ATTEMPTS_EXHAUSTED = "attempts_exhausted"
NOT_RETRYABLE = "not_retryable"
RETRY_EXCLUDED = "retry_excluded"
"""The error might go away, but the settings or the job itself exclude it from retries."""
RESTORED = "restored"
"""It had died already when the database was set back to a backup: its first dead letter is lost."""

MAX_DOUBLINGS = 30


@dataclass(frozen=True)
class RetryPolicy:
    """When a failed job is tried again.

    Attributes:
      max_attempts: Failed attempts after which it is dead.
      base_ms: Longest wait before the second attempt.
      cap_ms: Longest wait before any.
      never: Codes of errors after which no job is tried again. A code stands for the codes of its subclasses
        in :mod:`tether.errors`, too.
      only: Codes of errors after which alone this job is tried again; empty is any.
    """

    max_attempts: int = 8
    base_ms: int = 1_000
    cap_ms: int = 60_000
    never: frozenset[str] = frozenset()
    only: frozenset[str] = frozenset()

    def for_job(self, *, max_attempts: int, base_ms: int, retry_on: str) -> RetryPolicy:
        """The same, with what a job asks for itself.

        Args:
          max_attempts, base_ms: 0 is what this policy says.
          retry_on: Codes, with spaces between; empty is any.
        """
        if not (max_attempts or base_ms or retry_on):
            return self
        base_ms = base_ms or self.base_ms
        return replace(
            self,
            max_attempts=max_attempts or self.max_attempts,
            base_ms=base_ms,
            cap_ms=max(self.cap_ms, base_ms),
            only=frozenset(retry_on.split()),
        )

    def excludes(self, error: JobError | None) -> bool:
        """Whether no attempt may follow such an error, although another could succeed."""
        if error is None:
            return bool(self.only)
        codes = codes_above(error.code)
        return not self.never.isdisjoint(codes) or bool(self.only and self.only.isdisjoint(codes))

    def wait_ms(self, failed: int, chance: float) -> int:
        """Wait before the next attempt: exponential backoff with full jitter (M. Brooker, "Exponential
        Backoff And Jitter", AWS Architecture Blog, 2015).

        Args:
          failed: Attempts that have failed, 1 or more.
          chance: A random number in [0, 1).
        """
        longest = min(self.cap_ms, self.base_ms * 2 ** min(failed - 1, MAX_DOUBLINGS))
        return int(longest * chance)


@dataclass(frozen=True, kw_only=True)
class PlannedRetry:
    """An attempt that is going to follow a failed one, once every gate lets it pass.

    Attributes:
      fence: Of the attempt that failed.
      pool: Where that was.
      policy: Of this job.
      failed: Attempts that failed so far, 1 or more.
      error: Why the last did.
      chance: A random number in [0, 1).
      now_ms: Milliseconds since the epoch.
    """

    job_id: JobId
    fence: Fence
    pool: PoolName | None
    policy: RetryPolicy
    failed: int
    error: JobError | None
    chance: float
    now_ms: int


class RetryGate(Protocol):
    """One reason to wait before a retry. A gate delays a retry and never refuses it.

    Attributes:
      name: What metrics call it.
    """

    @property
    def name(self) -> str: ...

    def opens_at(self, retry: PlannedRetry) -> int:
        """From when the retry may pass, in milliseconds since the epoch."""


class BackoffGate:
    """The policy's backoff."""

    name = "backoff"

    def opens_at(self, retry: PlannedRetry) -> int:
        return retry.now_ms + retry.policy.wait_ms(retry.failed, retry.chance)


class RetryAfterGate:
    """What the failure itself asked for."""

    name = "retry_after"

    def opens_at(self, retry: PlannedRetry) -> int:
        return retry.now_ms + (retry.error.retry_after_ms if retry.error else 0)


POLICY_GATES: tuple[RetryGate, ...] = (BackoffGate(), RetryAfterGate())
"""Gates that know nothing of other jobs."""


def last_to_open(retry: PlannedRetry, gates: Sequence[RetryGate]) -> tuple[int, str]:
    """When a retry has passed a row of gates, and the name of the one that opens last; of several the
    first."""
    opens_at, name = retry.now_ms, ""
    for gate in gates:
        at = gate.opens_at(retry)
        if not name or at > opens_at:
            opens_at, name = at, gate.name
    return opens_at, name


def decide(
    outcome: Outcome,
    *,
    failed_before: int,
    requested: JobState | None,
    policy: RetryPolicy,
    chance: float,
    now_ms: int,
    retry_token: str,
    pool: PoolName | None = None,
    gates: Sequence[RetryGate] = POLICY_GATES,
) -> Verdict:
    """What becomes of a job whose dispatch or attempt ended with ``outcome``.

    Args:
      failed_before: Attempts of it that failed before this one.
      requested: The end that somebody asked for, where that is so.
      policy: Of this job.
      chance: A random number in [0, 1), for the wait.
      now_ms: Milliseconds since the epoch.
      retry_token: A fresh token, for the dead letter.
      pool: Where it was.
      gates: What a retry must pass.
    """
    kind = outcome.kind
    if kind is OutcomeKind.SUCCEEDED:
        return Verdict(JobState.SUCCEEDED)
    if kind in (OutcomeKind.CANCELLED, OutcomeKind.EXPIRED):
        return Verdict(JobState(kind))
    if requested is not None:
        return Verdict(requested)
    if kind is OutcomeKind.WITHDRAWN:
        hand_overs = outcome.fence.dispatch - failed_before
        return Verdict(JobState.PARKED, due_at=now_ms + pause_after(hand_overs))
    if kind is OutcomeKind.POISONED:
        return Verdict(JobState.DEAD, letter=_letter(POISON, outcome, retry_token))
    error = outcome.error
    if error is not None and not error.retryable:
        return Verdict(JobState.DEAD, letter=_letter(NOT_RETRYABLE, outcome, retry_token, retryable=False))
    if policy.excludes(error):
        return Verdict(JobState.DEAD, letter=_letter(RETRY_EXCLUDED, outcome, retry_token))
    failed = failed_before + outcome.counts(failed_before)
    if failed >= policy.max_attempts:
        return Verdict(JobState.DEAD, letter=_letter(ATTEMPTS_EXHAUSTED, outcome, retry_token))
    retry = PlannedRetry(
        job_id=outcome.job_id,
        fence=outcome.fence,
        pool=pool,
        policy=policy,
        failed=max(1, failed),
        error=error,
        chance=chance,
        now_ms=now_ms,
    )
    due_at, gate = last_to_open(retry, gates)
    return Verdict(JobState.WAITING_RETRY, due_at=due_at, waits_for=gate)


def _letter(reason: str, outcome: Outcome, retry_token: str, *, retryable: bool = True) -> Letter:
    return Letter(reason, retryable, retry_token, evidence_of_deaths(outcome.evidence, outcome.deaths))
