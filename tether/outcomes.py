"""How attempts and dispatches of jobs end: fences, outcomes, and what the database makes of them.

All types here are frozen values; nothing here reads a clock, a random source or a server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tether.attempts import AttemptEnd
from tether.deaths import Death
from tether.ids import NO_WORKER, BootId, DrawId, JobId
from tether.jobs import JobError, JobState, Piece

VERSION = 1
"""Version of outcomes and stream entries, not of payloads. Readers accept this one and the one before."""


@dataclass(frozen=True, order=True)
class Fence:
    """Fencing token of every write of a worker. A write is accepted only if it equals the current one.

    Attributes:
      dispatch: Numbered by the database, one for each hand-over of the job to Redis.
      attempt: Numbered by the draw script, one for each draw of a dispatch.
      draw_id: ``<worker's boot id>:<its own draw counter>``: two attempts with the same numbers, before and
        after a loss in Redis, are still two.
    """

    dispatch: int
    attempt: int
    draw_id: DrawId


class OutcomeKind(StrEnum):
    """How a dispatch or an attempt ended, as the script that ended it wrote."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    POISONED = "poisoned"


FREE_PROBES = 32
"""A job that was placed so often without an attempt that counts pays for probes: it may be their cause."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One entry of ``core:outcomes``: Redis hands a job back to the database.

    Attributes:
      job_id: The job.
      kind: How it ended.
      fence: Of the attempt that ended; a dispatch that was never drawn has attempt 0 and no draw id.
      worker: The worker's boot id; empty if it was never drawn.
      run: The stream's run.
      offset: Number of generated tokens.
      error: Why, if it did not succeed; or, if it did, that its output is lost.
      input_tokens: Tokens of the prompt, as the engine counted them; 0 if it was not encoded.
      finish_reason: ``stop`` or ``length``, if it succeeded.
      deaths: Number of processes that died while running it.
      evidence: What is known of each.
      ended_at: By Redis's clock, in milliseconds since the epoch.
      pieces: The tokens, if it is final for Redis; those in the stream when it was read.
      ends: The ends of the attempts since Redis last handed the job back, with that of this outcome's.
      dropped_ends: Number of further ones, which are no longer known.
      was_probe: Whether it failed on a worker that is held since it fails what it is given, and had this job
        to show whether it works again.
    """

    job_id: JobId
    kind: OutcomeKind
    fence: Fence
    worker: BootId = NO_WORKER
    run: int = 0
    offset: int = 0
    error: JobError | None = None
    input_tokens: int = 0
    finish_reason: str = ""
    deaths: int = 0
    evidence: tuple[Death, ...] = ()
    ended_at: int = 0
    pieces: tuple[Piece, ...] = ()
    ends: tuple[AttemptEnd, ...] = ()
    dropped_ends: int = 0
    was_probe: bool = False

    @property
    def has_begun(self) -> bool:
        """Whether the dispatch was drawn at least once."""
        return self.fence.attempt > 0 or bool(self.ends) or self.dropped_ends > 0

    def counts(self, failed_before: int) -> bool:
        """Whether it is one of the failed attempts of which a job has so many.

        What a worker's death or a hand-over cut off is none, nor, for a while, is a failure that was to be
        expected of its worker.

        Args:
          failed_before: Attempts that counted before this.
        """
        match self.kind:
            case OutcomeKind.POISONED:
                return True
            case OutcomeKind.WITHDRAWN:
                return False
            case OutcomeKind.FAILED:
                return not self.was_probe or self.fence.dispatch - failed_before > FREE_PROBES
            case _:
                return self.fence.attempt > 0


@dataclass(frozen=True)
class Letter:
    """A dead letter to be written.

    Attributes:
      reason: Why the job is not retried automatically.
      retryable: Whether a manual retry can succeed.
      retry_token: Allows retrying it once.
      evidence: What is known of how workers died that ran it, as JSON has it.
    """

    reason: str
    retryable: bool
    retry_token: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The state that follows.

    Attributes:
      state: A final state, ``waiting_retry`` or ``parked``.
      due_at: When it may be placed again, in milliseconds since the epoch, if it waits.
      letter: Its dead letter, if it is dead.
      waits_for: Which of the gates of a retry opens last, if it waits for its next attempt.
    """

    state: JobState
    due_at: int = 0
    letter: Letter | None = None
    waits_for: str = ""
