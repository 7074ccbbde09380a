"""What a client needs from whatever carries its calls: the database and Redis, a gateway, or a fake."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tether.errors import ClientClosed, InvalidRequest, JobNotFound, TetherError
from tether.jobs import JobError, JobFilter, JobRequest, JobState, Piece

MOST_OFFSET = 2**32 - 1
"""Greatest token offset that a stream can have."""


def check_process(process: int) -> None:
    """Whether this is the process in which a client was made: its threads do not come along in a fork.

    Raises:
      ClientClosed: It is another one.
    """
    if os.getpid() != process:
        raise ClientClosed(
            f"the client was made in process {process}, from which this one was forked: make the client "
            "in the child, after the fork"
        )


def check_offset(offset: object) -> None:
    """Whether a stream can be followed from there.

    Raises:
      InvalidRequest: It is no number of tokens.
    """
    if type(offset) is not int or not 0 <= offset <= MOST_OFFSET:
        raise InvalidRequest(
            f"offset={repr(offset)[:100]} is no number of tokens: give a whole number from 0 to {MOST_OFFSET}"
        )


_JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


def check_job_id(job_id: object) -> None:
    """What cannot be a job's id is no job's: some of it no database and no address takes.

    Raises:
      JobNotFound: It cannot be one.
    """
    if not isinstance(job_id, str) or _JOB_ID.match(job_id) is None:
        raise no_such_job(job_id)


def no_such_job(job_id: object) -> JobNotFound:
    return JobNotFound(f"there is no job {repr(job_id)[:100]}, or it is another tenant's")


def check_page(cursor: object, limit: object) -> None:
    """Whether a page can be asked for so.

    Raises:
      InvalidRequest: It cannot.
    """
    if type(limit) is not int or not 1 <= limit <= MOST_JOBS_A_PAGE:
        raise InvalidRequest(
            f"limit={repr(limit)[:100]} is no number of jobs: give one from 1 to {MOST_JOBS_A_PAGE}"
        )
    if cursor is not None and (not isinstance(cursor, str) or _JOB_ID.match(cursor) is None):
        raise InvalidRequest(
            f"cursor={repr(cursor)[:100]} is none that was answered: take next_cursor of the page before"
        )


@dataclass(frozen=True)
class Submitted:
    """A job that was accepted, now or when its keys were first used.

    Attributes:
      is_new: Whether this call made it.
    """

    job_id: str
    correlation_id: str
    retry_token: str
    state: JobState
    is_new: bool


@dataclass(frozen=True, kw_only=True)
class StreamEvent:
    """One thing that happened to a job, as its stream tells it.

    Attributes:
      kind: ``started``, ``delta``, ``rerouted`` (another worker goes on), ``restarted`` (what came after
        ``offset`` is void, and is made anew), ``finished`` or ``failed``.
      run: Counts restarts.
      offset: Tokens until then.
      pieces: The tokens of a ``delta``.
      details: What else there is to say.
    """

    kind: str
    run: int = 0
    offset: int = 0
    pieces: tuple[Piece, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    @property
    def is_last(self) -> bool:
        return self.kind in ("finished", "failed")


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """What is known of a job. Times are milliseconds since the epoch.

    Attributes:
      attempts: Attempts that failed.
      offset: Tokens made so far.
      finished_at: When the database recorded its end, which follows the end itself within milliseconds.
      error: Why it failed, or its last attempt.
      input_tokens: Tokens of the prompt; 0 until the end is recorded.
    """

    job_id: str
    correlation_id: str
    retry_token: str
    state: JobState
    model: str
    priority: str
    labels: Mapping[str, str]
    pool: str | None
    dispatch: int
    attempts: int
    offset: int
    created_at: int
    finished_at: int | None
    error: JobError | None
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class JobPage:
    """Some jobs, the newest first, and where the next page begins; None where there is none.

    A page may hold fewer jobs than were asked for, or none, and still have one after it.
    """

    jobs: tuple[JobStatus, ...]
    next_cursor: str | None


MOST_JOBS_A_PAGE = 200


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A model that can be asked for.

    Attributes:
      context: Most tokens of prompt and answer together.
      workers: Live workers that serve it now. Without any, its jobs wait.
    """

    name: str
    version: str
    context: int
    adapters: tuple[str, ...] = ()
    workers: int = 0


Deliver = Callable[[StreamEvent | TetherError], None]
"""Takes what comes of a stream: its events; or the error for which nothing more comes, as the last."""


class Subscription(Protocol):
    """A reader of one stream; :meth:`close` ends it."""

    def close(self) -> None: ...


class Backend(Protocol):
    """Carries a client's calls. Safe to use from many threads. Every method but :meth:`now_ms` may block."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch, by the clock that delays and time limits count from."""

    def submit(self, requests: Sequence[JobRequest]) -> list[Submitted | Exception]:
        """Accept jobs: all are durable when it answers. One that is refused does not touch the others.

        The requests are valid: :func:`~tether.client.requests.check_request` made them.
        """

    def status(self, job_id: str) -> JobStatus:
        """What is known of a job.

        Raises:
          JobNotFound: There is no such job.
        """

    def cancel(self, job_id: str) -> JobState:
        """Ask for a job's end. Answers the state it is in then.

        Raises:
          JobNotFound: There is no such job.
        """

    def find(self, job_filter: JobFilter, cursor: str | None, limit: int) -> JobPage:
        """A page of jobs, the newest first.

        Args:
          cursor: That of the page before; None for the first.
          limit: Most jobs to answer, up to ``MOST_JOBS_A_PAGE``.

        Raises:
          InvalidRequest: The cursor or the limit is not possible.
        """

    def models(self) -> list[ModelInfo]:
        """What can be asked for, in the order of configuration."""

    def follow(self, job_id: str, offset: int, deliver: Deliver) -> Subscription:
        """Call ``deliver`` with every event from token ``offset`` on, in order, until the last one.

        It is called on the backend's own thread, and must not block. Where the backend is closed before the
        last event, :class:`ClientClosed` is delivered.

        Raises:
          InvalidRequest: The offset is not possible.
          ClientClosed: The backend was closed, or belongs to another process.
          JobNotFound: There is no such job.
        """

    def close(self) -> None:
        """Give everything back."""
