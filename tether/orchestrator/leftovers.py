"""What becomes of a job's keys in Redis that nobody else sees to: decided from what both sides hold."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tether.jobs import JobState

NO_KEY = -2
NO_LIFE = -1
"""What Redis answers for the life of a key that there is not, and of one that has none."""


@dataclass(frozen=True, kw_only=True)
class HeldJob:
    """What Redis holds of a job.

    Attributes:
      job_life_ms, stream_life_ms: Of its hash and its stream: :data:`NO_KEY`, :data:`NO_LIFE`, or the time
        after which Redis forgets it.
      is_noted: Whether the database did not know it at an earlier look.
    """

    job_life_ms: int
    stream_life_ms: int
    is_noted: bool = False


class Remedy(StrEnum):
    """What to do about a job's keys.

    Values:
      NONE: They have an owner, or an end.
      SEAL: The database has the job's end, and Redis was never told.
      EXPIRE_STREAM: Only the stream of an ended job is left.
      DISOWN: The database does not know the job.
      ACKNOWLEDGE: It does again: a database was put in the place of another for a while.
    """

    NONE = "none"
    SEAL = "seal"
    EXPIRE_STREAM = "expire_stream"
    DISOWN = "disown"
    ACKNOWLEDGE = "acknowledge"


def remedy(held: HeldJob, state: JobState | None) -> Remedy:
    """Return what to do about a job's keys.

    A job is committed before it is placed, and an end before it is sealed: whatever was read of Redis first,
    the database knows as well.

    Args:
      held: What Redis held before ``state`` was read.
      state: The job's in the database; None where it does not know it.
    """
    is_kept = NO_LIFE in (held.job_life_ms, held.stream_life_ms)
    if state is None:
        return Remedy.DISOWN if is_kept else Remedy.NONE
    if not state.is_final:
        return Remedy.ACKNOWLEDGE if held.is_noted else Remedy.NONE
    if not is_kept:
        return Remedy.NONE
    return Remedy.EXPIRE_STREAM if held.job_life_ms == NO_KEY else Remedy.SEAL
