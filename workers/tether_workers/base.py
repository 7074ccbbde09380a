"""BaseWorker: what a team adds to the worker, as hooks to override."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tether.config import ModelSettings
from tether.jobs import JobError
from tether_workers.job import Job


class ResultKind(StrEnum):
    """How an attempt ended on this worker.

    Values:
      SUCCEEDED, FAILED, CANCELLED, EXPIRED: The attempt's own end counts.
      RELEASED: Another worker goes on.
      DROPPED: The job was no longer this worker's; nothing was written at its end.
    """

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    RELEASED = "released"
    DROPPED = "dropped"


@dataclass(frozen=True)
class AttemptResult:
    """How an attempt ended.

    Attributes:
      kind: See :class:`ResultKind`.
      offset: Tokens of the job until then, by all attempts.
      made: Tokens of this attempt.
      finish_reason: ``stop`` or ``length`` where it succeeded.
      error: Why, where it failed.
    """

    kind: ResultKind
    offset: int
    made: int
    finish_reason: str = ""
    error: JobError | None = None


class BaseWorker:
    """Hooks of an inference worker. Each does nothing here; override what you need.

    They are called in the slots, from many threads. What a hook raises never ends a slot.
    """

    def authorize(self, job: Job) -> None:
        """Decide whether to run a job, before anything is loaded for it.

        Raise :class:`JobRefused` with a message for the client to refuse it; anything else that is raised
        refuses it too, without its words. A job that is refused is not tried again.
        """

    def before_load(self, model: ModelSettings) -> None:
        """Called in the slot that is about to load a model. What is raised here fails the load."""

    def after_result(self, job: Job, result: AttemptResult) -> None:
        """Called when an attempt has ended. What is raised here is logged."""

    def health(self) -> Mapping[str, object]:
        """More to tell of the worker than it knows itself: it is logged with its state."""
        return {}
