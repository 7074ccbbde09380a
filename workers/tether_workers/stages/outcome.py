"""How an attempt ends: what its stages came to, and what it was told meanwhile, as one outcome. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from tether.errors import EngineFailed, TetherError
from tether.jobs import JobError
from tether.telemetry.redaction import scrub
from tether_workers.attempts.attempt import AttemptEnding
from tether_workers.base import ResultKind
from tether_workers.engine import FinishReason

REFUSED = JobError(
    EngineFailed.code,
    "what the engine generated was refused: more tokens than the job may have, or too much text at once; "
    "see the worker's log",
    retryable=True,
)
CANCELLED = JobError("job_cancelled", "it was cancelled")
EXPIRED = JobError("job_expired", "its deadline passed")


@dataclass(frozen=True)
class AttemptOutcome:
    """What is to be written at the end of an attempt.

    Attributes:
      kind: Any but ``DROPPED``.
      finish_reason: Of one that succeeded.
      error: Of one that failed, was cancelled or expired.
    """

    kind: ResultKind
    finish_reason: FinishReason | None = None
    error: JobError | None = None


def outcome_of(
    finish_reason: FinishReason | None,
    error: JobError | None,
    *,
    ending: AttemptEnding | None,
    lost_tokens: bool,
    is_refused: bool = False,
) -> AttemptOutcome:
    """Return the outcome of an attempt that is not dropped.

    One whose tokens are all generated succeeds, even if it was asked to end meanwhile. One that lost tokens
    neither succeeds nor fails here: another attempt continues at the stream's offset.

    Args:
      finish_reason: Why its engine stopped.
      error: The error of a failed stage.
      ending: The requested end.
      lost_tokens: Whether tokens of it did not reach the stream.
      is_refused: Whether that is because Redis refused them: the attempt could not have generated them.
    """
    if finish_reason is not None and not lost_tokens:
        return AttemptOutcome(ResultKind.SUCCEEDED, finish_reason=finish_reason)
    if ending is AttemptEnding.CANCELLED:
        return AttemptOutcome(ResultKind.CANCELLED, error=CANCELLED)
    if ending is AttemptEnding.EXPIRED:
        return AttemptOutcome(ResultKind.EXPIRED, error=EXPIRED)
    if is_refused:
        return AttemptOutcome(ResultKind.FAILED, error=REFUSED)
    if error is not None and not lost_tokens:
        return AttemptOutcome(ResultKind.FAILED, error=error)
    return AttemptOutcome(ResultKind.RELEASED)


def job_error_of(failure: Exception) -> JobError:
    """What a stage raised, as the job's outcome carries it: only our own errors' words are for clients."""
    if isinstance(failure, TetherError):
        wait_ms = 0 if failure.retry_after is None else max(0, round(failure.retry_after * 1000))
        return JobError(failure.code, scrub(str(failure)), failure.retryable, wait_ms)
    return JobError(
        EngineFailed.code, f"the engine raised {type(failure).__name__}: see the worker's log", retryable=True
    )
