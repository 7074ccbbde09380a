"""What the database makes of a dispatch or an attempt that ended."""

from __future__ import annotations

from dataclasses import dataclass

from tether.jobs import JobState


@dataclass(frozen=True)
class Letter:
    """A dead letter to be written.

    Attributes:
      reason: Why the job will not be tried again by itself.
      retryable: Whether sending it again can help.
      retry_token: With which it can be sent again, once.
    """

    reason: str
    retryable: bool
    retry_token: str


@dataclass(frozen=True)
class Verdict:
    """The state that follows.

    Attributes:
      state: A final state, ``waiting_retry`` or ``parked``.
      due_at: When it may be placed again, in milliseconds since the epoch, where it waits.
      letter: Its dead letter, where it is dead.
    """

    state: JobState
    due_at: int = 0
    letter: Letter | None = None
