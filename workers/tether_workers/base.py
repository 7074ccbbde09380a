"""BaseWorker: what a team adds to the worker, as hooks to override."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tether.config.settings import ModelSettings
from tether.jobs import JobError
from tether_workers.job import Job


class ResultKind(StrEnum):
    """How an attempt ended on this worker.

    Values:
      SUCCEEDED, FAILED, CANCELLED, EXPIRED: The attempt ended so.
      RELEASED: Another worker continues.
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
      offset: Number of the job's tokens so far, by all attempts.
      made: Number of tokens of this attempt.
      finish_reason: ``stop`` or ``length`` if it succeeded.
      error: Why, if it failed.
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

        Raise :class:`JobRefused` to reject it with a message for the client; any other exception rejects it
        too, without its message. A rejected job is not retried.
        """

    def before_load(self, model: ModelSettings) -> None:
        """Called in the thread that is about to load a model, which is none of a slot. An exception fails the
        load."""

    def after_result(self, job: Job, result: AttemptResult) -> None:
        """Called when an attempt has ended. Exceptions are logged."""

    def health(self) -> Mapping[str, object]:
        """Return further facts about the worker's health, to be logged."""
        return {}
