"""What every stage is, and what one hands on to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tether_workers.attempts.attempt import Attempt
from tether_workers.engine import ExecutionEngine, FinishReason
from tether_workers.job import Job


@dataclass(kw_only=True)
class InferenceWork:
    """One attempt on its way through the stages. It belongs to the thread of its slot.

    Attributes:
      attempt: Where tokens go, and where the wish to end comes from.
      job: What is to be done.
      loaded: The engine of its model, from the stage ``load`` on.
      prompt_ids: The prompt's tokens, from the stage ``encode`` on.
      finish_reason: Why there are no more tokens, from the stage ``generate`` on; None where the attempt was
        told to end before.
    """

    attempt: Attempt
    job: Job
    loaded: ExecutionEngine | None = None
    prompt_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None

    @property
    def engine(self) -> ExecutionEngine:
        """The loaded engine. Only stages after ``load`` may ask for it."""
        assert self.loaded is not None, "the stage load comes before all that use the engine"
        return self.loaded


class InferenceStage(Protocol):
    """One step of every attempt. Safe to use from many threads: what it learns stands in the work.

    Attributes:
      name: What logs call it.
    """

    @property
    def name(self) -> str: ...

    def run(self, work: InferenceWork) -> None:
        """Do this stage's part, or raise: the attempt then goes straight to its end.

        Raises:
          TetherError: The attempt fails with its code and words, and is tried again where it is retryable.
          Exception: The attempt fails as ``engine_failed``, without its words.
        """
        ...
