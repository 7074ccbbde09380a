"""What a chaos run promises, and how a promise that was broken is told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Promise(StrEnum):
    """What a run must not break.

    Values:
      LOST: Every accepted job has one final state.
      DOUBLED: A key has one job, a job ends once and is charged once.
      WRONGLY_DEAD: No job is dead, nor has a dead letter.
      UNASKED: What was refused does not run; what is cancelled or expired was to be; no job is from nowhere.
      STREAM: A stream has each token once, in order, and ends once, as its job did.
      TEXT: What was made equals the undisturbed run.
      ANSWER: What a client was told is what stands in the database.
      LEFT: Nothing is held, waits, or stands in Redis without an owner.
      EFFECTLESS: Each type of fault had an effect.
    """

    LOST = "lost"
    DOUBLED = "doubled"
    WRONGLY_DEAD = "wrongly dead"
    UNASKED = "unasked"
    STREAM = "stream"
    TEXT = "text"
    ANSWER = "answer"
    LEFT = "left"
    EFFECTLESS = "effectless"


@dataclass(frozen=True)
class Violation:
    """A promise that was broken.

    Attributes:
      what: The job, key or reader, and what is wrong.
    """

    promise: Promise
    what: str
