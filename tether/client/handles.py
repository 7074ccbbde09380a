"""Handles of submitted jobs: their stream, result, status and cancellation."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from tether.client import lazy
from tether.client.pickles import WithoutClient
from tether.client.ports import Backend
from tether.errors import JobCancelled, JobExpired, JobFailed, OutputLost, ResultTimeout, TetherError
from tether.ids import JobId
from tether.jobs import JobState, Piece
from tether.streams.events import StreamEvent


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a job generated.

    Attributes:
      text: The generated text.
      token_ids: Ids of the generated tokens.
      input_tokens: Number of tokens of the prompt.
      finish_reason: ``stop`` or ``length``.
    """

    job_id: JobId
    text: str
    token_ids: tuple[int, ...]
    input_tokens: int
    finish_reason: str


class Gathering:
    """Collects the tokens of a stream, and handles restarts.

    Attributes:
      pieces: All tokens that are currently valid.
    """

    def __init__(self, job_id: JobId) -> None:
        self._job_id = job_id
        self.pieces: list[Piece] = []

    def add(self, event: StreamEvent) -> None:
        if event.kind == "restarted":
            del self.pieces[event.offset :]
        self.pieces += event.pieces

    def result(self, last: StreamEvent) -> Result:
        """Return the result, or raise the error in the last event."""
        if last.kind == "failed":
            raise failure_of(self._job_id, last)
        return Result(
            job_id=self._job_id,
            text="".join(piece.text for piece in self.pieces),
            token_ids=tuple(piece.token_id for piece in self.pieces),
            input_tokens=int(last.details.get("input_tokens", 0)),
            finish_reason=str(last.details.get("reason", "")),
        )


def failure_of(job_id: JobId, event: StreamEvent) -> JobFailed:
    """Return the error in a job's last event."""
    state = event.details.get("state")
    if state == JobState.CANCELLED:
        return JobCancelled(f"job {job_id} was cancelled")
    if state == JobState.EXPIRED:
        return JobExpired(
            f"job {job_id} did not finish by its deadline, or was not begun in time: set a later one, or a "
            "higher priority"
        )
    if state == JobState.SUCCEEDED:
        return OutputLost(
            f"job {job_id} succeeded, and part of its output is lost: Redis lost it before the database had "
            "it. Submit the job again, with another idempotency key if it had one"
        )
    reason = event.details.get("code", "unknown")
    message = event.details.get("message", "")
    return JobFailed(f"job {job_id} failed permanently ({reason}){': ' if message else ''}{message}")


def event_in(event: StreamEvent | TetherError) -> StreamEvent:
    """Return what was delivered of a stream, or raise the error that ended it."""
    if isinstance(event, TetherError):
        raise event
    return event


def late_result(job_id: JobId, timeout: float | None) -> ResultTimeout:
    """Return the error of a wait that was too short."""
    return ResultTimeout(
        f"job {job_id} has not finished within {timeout} s; it continues, and can be waited for again"
    )


@dataclass(frozen=True)
class JobHandle(WithoutClient):
    """A submitted job. Any process can make a handle from the job's id: ``tether.job(job_id)``.

    ``degraded_from`` is the model that was asked for, where it runs on a lesser one as the tenant's policy
    allows, and the job was just submitted; else None.

    A pickle of it holds the id and the keys, and no client: ``tether.job(handle.job_id)`` goes on with it.
    """

    job_id: JobId
    backend: Backend
    correlation_id: str = ""
    retry_token: str = ""
    is_new: bool = False
    degraded_from: str | None = None

    def events(self, *, offset: int = 0, timeout: float | None = None) -> Generator[StreamEvent, None, None]:
        """Iterate over the job's events from token ``offset`` to the last one.

        Args:
          timeout: Maximum wait for the next event, in seconds.

        Raises:
          JobNotFound: There is no such job.
          ResultTimeout: No event arrived in time.
          ClientClosed: The client was closed meanwhile.
        """
        inbox: queue.SimpleQueue[StreamEvent | TetherError] = queue.SimpleQueue()
        follow = self.backend.stream_port.follow
        subscription = follow(self.job_id, offset, inbox.put, within=timeout)
        try:
            while True:
                try:
                    event = event_in(inbox.get(timeout=timeout))
                except queue.Empty:
                    raise late_result(self.job_id, timeout) from None
                yield event
                if event.is_last:
                    return
        finally:
            subscription.close()

    def stream(self, *, timeout: float | None = None) -> Iterator[str]:
        """Iterate over the text as it is generated.

        Raises:
          JobFailed: The job failed, was cancelled or expired, or its output is lost.
          ResultTimeout: Nothing arrived for ``timeout`` seconds.
          ClientClosed: The client was closed meanwhile.
        """
        with contextlib.closing(self.events(timeout=timeout)) as events:
            for event in events:
                if event.kind == "delta":
                    yield event.text
                elif event.kind == "failed":
                    raise failure_of(self.job_id, event)

    def result(self, timeout: float | None = None) -> Result:
        """Wait until the job has ended, and return its result.

        Args:
          timeout: Longest wait, in seconds.

        Raises:
          JobFailed: The job failed, was cancelled or expired, or its output is lost.
          ResultTimeout: The job has not ended in time. It continues.
          ClientClosed: The client was closed meanwhile.
        """
        gathering = Gathering(self.job_id)
        inbox: queue.SimpleQueue[StreamEvent | TetherError] = queue.SimpleQueue()
        deadline = None if timeout is None else time.monotonic() + timeout
        subscription = self.backend.stream_port.follow(self.job_id, 0, inbox.put, within=timeout)
        try:
            while True:
                left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
                try:
                    event = event_in(inbox.get(timeout=left))
                except queue.Empty:
                    raise late_result(self.job_id, timeout) from None
                gathering.add(event)
                if event.is_last:
                    return gathering.result(event)
        finally:
            subscription.close()

    def status(self) -> lazy.JobStatus:
        """Return the job's current status."""
        return self.backend.job_port.status(self.job_id)

    def history(self) -> lazy.JobHistory:
        """Return every attempt of the job: worker, pool, times, why it ended, and where the job went.

        Raises:
          JobNotFound: There is no such job.
        """
        return self.backend.job_port.history(self.job_id)

    def placements(self) -> lazy.JobPlacements:
        """Return how the job came to its pools: what was expected of each pool, and how long it really
        waited.

        Raises:
          JobNotFound: There is no such job.
        """
        return self.backend.job_port.placements(self.job_id)

    def cancel(self) -> JobState:
        """Cancel the job, and return its state then: a running job ends once its worker has received it."""
        return self.backend.job_port.cancel(self.job_id)

    def reprioritise(self, priority: str) -> JobState:
        """Give the job another priority, and return its state then. A waiting job keeps its age; a running
        one goes on, and its next attempt has the new priority.

        Args:
          priority: ``interactive``, ``standard`` or ``batch``.

        Raises:
          InvalidRequest: There is no such priority.
          JobNotFound: There is no such job.
          JobEnded: It has ended.
        """
        from tether.job_changes import read_priority

        return self.backend.change_port.reprioritise(self.job_id, read_priority(priority))
