"""What a client needs from whatever carries its calls: the database and Redis, a gateway, or a fake.

Each subject is a port of its own: a capability adds a port, and an implementation of it to each carrier. Over
HTTP a method is carried by its declaration, see :func:`~tether.client.operations.over_http`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tether.client.change_calls import change_body
from tether.client.job_lists import page_query
from tether.client.letter_calls import letter_batch_body, letter_query, letter_retry_body
from tether.client.message_calls import message_purge_body, message_query, message_retry_body
from tether.client.operations import over_http
from tether.dead_letters import (
    LetterDetails,
    LetterFilter,
    LetterPage,
    LetterPurge,
    LetterRetries,
    LetterRetry,
    LetterSummary,
)
from tether.dead_messages import (
    DeadMessage,
    DeadMessagePage,
    DeadMessagePurge,
    DeadMessageRetry,
    DeadQueue,
)
from tether.histories import JobHistory
from tether.ids import JobId
from tether.job_changes import JobChanges
from tether.jobs import JobFilter, JobRequest, JobState
from tether.statuses import JobPage, JobStatus, ModelInfo, Submitted
from tether.streams.events import Deliver, StreamSubscription


class JobPort(Protocol):
    """Jobs: submitted, looked at, cancelled."""

    def submit(self, requests: Sequence[JobRequest]) -> list[Submitted | Exception]:
        """Accept jobs: all are durable when it answers. One that is refused does not touch the others.

        The requests are valid: :func:`~tether.requests.options.check_request` made them.
        """

    @over_http("GET", "/v1/jobs/{job_id}")
    def status(self, job_id: JobId) -> JobStatus:
        """What is known of a job.

        Raises:
          JobNotFound: There is no such job.
        """

    @over_http("GET", "/v1/jobs/{job_id}/attempts")
    def history(self, job_id: JobId) -> JobHistory:
        """What became of a job's attempts.

        Raises:
          JobNotFound: There is no such job.
        """

    @over_http("DELETE", "/v1/jobs/{job_id}", read=lambda document: JobState(document["state"]))
    def cancel(self, job_id: JobId) -> JobState:
        """Ask for a job's end. Answers the state it is in then.

        Raises:
          JobNotFound: There is no such job.
        """

    @over_http("GET", "/v1/jobs", query=page_query)
    def find(self, job_filter: JobFilter, cursor: str | None, limit: int) -> JobPage:
        """A page of jobs, the newest first.

        Args:
          cursor: That of the page before; None for the first.
          limit: Most jobs to answer, up to ``MAX_JOBS_PER_PAGE``.

        Raises:
          InvalidRequest: The cursor or the limit is not possible.
        """


class JobChangePort(Protocol):
    """Many jobs, changed by filter: a batch a call."""

    @over_http("POST", "/v1/jobs:cancel-where", body=change_body)
    def cancel_where(
        self, job_filter: JobFilter, dry_run: bool, cursor: str | None, limit: int
    ) -> JobChanges:
        """Cancel a batch of the jobs that match and have not ended, the newest first, each by itself. The
        next batch begins at the cursor.

        Args:
          dry_run: Only tell which ones it would be.

        Raises:
          InvalidRequest: The filter, the cursor or the limit is not possible.
        """


class StreamPort(Protocol):
    """Jobs' streams."""

    def follow(self, job_id: JobId, offset: int, deliver: Deliver) -> StreamSubscription:
        """Call ``deliver`` with every event from token ``offset`` on, in order, until the last one.

        It is called on the backend's own thread, and must not block. Where the backend is closed before the
        last event, :class:`ClientClosed` is delivered.

        Raises:
          InvalidRequest: The offset is not possible.
          ClientClosed: The backend was closed, or belongs to another process.
          JobNotFound: There is no such job.
        """


class ModelPort(Protocol):
    """Models that can be asked for."""

    @over_http("GET", "/v1/models")
    def models(self) -> list[ModelInfo]:
        """What can be asked for, in the order of configuration."""


class LetterPort(Protocol):
    """Dead letters: looked at, retried, purged."""

    @over_http("GET", "/v1/dead-letters", query=letter_query)
    def find(self, letter_filter: LetterFilter, cursor: str | None, limit: int) -> LetterPage:
        """A page of dead letters, the newest first.

        Raises:
          InvalidRequest: The filter, the cursor or the limit is not possible.
        """

    @over_http("GET", "/v1/dead-letters/{job_id}")
    def letter(self, job_id: JobId) -> LetterDetails:
        """The dead letter of a job.

        Raises:
          JobNotFound: This cannot be the id of a job.
          LetterNotFound: There is none.
        """

    @over_http("POST", "/v1/dead-letters:retry", body=letter_retry_body)
    def retry(self, retry_token: str, force: bool = False) -> LetterRetry:
        """Retry the dead letter that has this token, as a new job; if the token was used, answer its job.

        Args:
          force: Also where the letter says that a retry would fail.

        Raises:
          RetryTokenUnknown: There is no such token, or it is another tenant's.
          RetryTokenSpent: The letter was purged or has expired, or the job that the token made was deleted.
          LetterNotRetryable: It is none that can succeed.
          LetterDamaged: What is needed of the dead job is gone, or cannot be read.
          TetherError: The submission was refused, as any can be.
        """

    @over_http("POST", "/v1/dead-letters:retry-where", body=letter_batch_body)
    def retry_where(
        self, letter_filter: LetterFilter, force: bool, cursor: str | None, limit: int
    ) -> LetterRetries:
        """Retry a batch of open dead letters, each by itself. The next batch begins at the cursor.

        Raises:
          InvalidRequest: The filter, the cursor or the limit is not possible.
        """

    @over_http("POST", "/v1/dead-letters:purge", body=letter_batch_body)
    def purge(self, letter_filter: LetterFilter, cursor: str | None, limit: int) -> LetterPurge:
        """Purge a batch of open dead letters. The next batch begins at the cursor.

        Raises:
          InvalidRequest: The filter, the cursor or the limit is not possible.
        """

    @over_http("GET", "/v1/dead-letters:summary")
    def summary(self) -> LetterSummary:
        """How many open dead letters there are, and when they expire."""


class DeadMessagePort(Protocol):
    """Dead messages of plain actors, for operators: looked at, retried, purged."""

    @over_http("GET", "/v1/operator/dead-messages")
    def queues(self) -> list[DeadQueue]:
        """The queues that have dead messages."""

    @over_http("GET", "/v1/operator/dead-messages/{queue}", query=message_query)
    def find(self, queue: str, cursor: str | None, limit: int, payloads: bool = False) -> DeadMessagePage:
        """A page of a queue's dead messages, the newest first.

        Raises:
          InvalidName: A queue cannot have that name.
          InvalidRequest: The cursor or the limit is not possible.
        """

    @over_http("GET", "/v1/operator/dead-messages/{queue}/{retry_token}")
    def message(self, queue: str, retry_token: str) -> DeadMessage:
        """One dead message, whole.

        Raises:
          RetryTokenUnknown: There is none.
        """

    @over_http("POST", "/v1/operator/dead-messages:retry", body=message_retry_body)
    def retry(self, queue: str, retry_token: str, force: bool = False) -> DeadMessageRetry:
        """Put a dead message back into its queue.

        Args:
          force: Also where it cannot be read.

        Raises:
          RetryTokenUnknown: There is none.
          LetterNotRetryable: It cannot be read.
          LetterDamaged: Its bytes are lost.
        """

    @over_http("POST", "/v1/operator/dead-messages:purge", body=message_purge_body)
    def purge(
        self, queue: str, retry_token: str | None, died_before: int | None, limit: int
    ) -> DeadMessagePurge:
        """Remove the dead message that has a token; without one, the oldest that died before a time.

        Raises:
          InvalidRequest: The limit is not possible.
        """


class Backend(Protocol):
    """Carries a client's calls. Safe to use from many threads. Every method of its ports may block."""

    @property
    def job_port(self) -> JobPort: ...

    @property
    def change_port(self) -> JobChangePort: ...

    @property
    def every_change_port(self) -> JobChangePort:
        """Jobs of all tenants, for operators."""

    @property
    def stream_port(self) -> StreamPort: ...

    @property
    def model_port(self) -> ModelPort: ...

    @property
    def letter_port(self) -> LetterPort: ...

    @property
    def every_letter_port(self) -> LetterPort:
        """Dead letters of all tenants, for operators."""

    @property
    def dead_message_port(self) -> DeadMessagePort:
        """Dead messages of plain actors, for operators."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch, by the clock that delays and time limits count from."""

    def close(self) -> None:
        """Give everything back."""
