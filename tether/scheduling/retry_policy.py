"""What follows an attempt that ended: pure."""

from __future__ import annotations

from dataclasses import dataclass

from tether.jobs import JobState, Letter, Outcome, OutcomeKind, Verdict
from tether.scheduling.lost_pools import pause_after

POISON = "poison"
ATTEMPTS_EXHAUSTED = "attempts_exhausted"
NOT_RETRYABLE = "not_retryable"
RESTORED = "restored"
"""It had died already when the database was set back to a backup: its first dead letter is lost."""


@dataclass(frozen=True)
class RetryPolicy:
    """When a failed job is tried again.

    Attributes:
      max_attempts: Failed attempts after which it is dead.
      base_ms: Longest wait before the second attempt.
      cap_ms: Longest wait before any.
    """

    max_attempts: int = 4
    base_ms: int = 500
    cap_ms: int = 60_000

    def wait_ms(self, failed: int, chance: float, at_least_ms: int = 0) -> int:
        """Wait before the next attempt: exponential backoff with full jitter (M. Brooker, "Exponential
        Backoff And Jitter", AWS Architecture Blog, 2015), and at least what the failure asked for.

        Args:
          failed: Attempts that have failed, 1 or more.
          chance: A random number in [0, 1).
          at_least_ms: Milliseconds that the failure asked for.
        """
        longest = min(self.cap_ms, self.base_ms * 2 ** min(failed - 1, 30))
        return max(int(longest * chance), at_least_ms)


def decide(
    outcome: Outcome,
    *,
    failed_before: int,
    requested: JobState | None,
    policy: RetryPolicy,
    chance: float,
    now_ms: int,
    retry_token: str,
) -> Verdict:
    """What becomes of a job whose dispatch or attempt ended with ``outcome``.

    Args:
      failed_before: Attempts of it that failed before this one.
      requested: The end that somebody asked for, where that is so.
      chance: A random number in [0, 1), for the wait.
      now_ms: Milliseconds since the epoch.
      retry_token: A fresh token, for the dead letter.
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
        return Verdict(JobState.DEAD, letter=Letter(POISON, True, retry_token))
    error = outcome.error
    if error is not None and not error.retryable:
        return Verdict(JobState.DEAD, letter=Letter(NOT_RETRYABLE, False, retry_token))
    failed = failed_before + 1
    if failed >= policy.max_attempts:
        return Verdict(JobState.DEAD, letter=Letter(ATTEMPTS_EXHAUSTED, True, retry_token))
    wait = policy.wait_ms(failed, chance, error.retry_after_ms if error else 0)
    return Verdict(JobState.WAITING_RETRY, due_at=now_ms + wait)
