"""What a client needs from whatever carries its calls: the database and Redis, a gateway, or a fake.

Each subject is a port of its own: a capability adds a port, and an implementation of it to each carrier. Over
HTTP a method is carried by its declaration, see :func:`~tether.client.operations.over_http`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from tether.client.job_lists import page_query
from tether.client.operations import over_http
from tether.histories import JobHistory
from tether.ids import JobId
from tether.job_filters import JobFilter
from tether.jobs import JobRequest, JobState
from tether.statuses import JobPage, JobStatus, ModelInfo, Submitted
from tether.streams.events import Deliver, StreamSubscription

if TYPE_CHECKING:
    # Who submits a job does not pay for their import.
    from tether.client.change_port import JobChangePort
    from tether.client.dead_message_port import DeadMessagePort
    from tether.client.letter_port import LetterPort


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


class StreamPort(Protocol):
    """Jobs' streams."""

    def follow(
        self, job_id: JobId, offset: int, deliver: Deliver, *, within: float | None = None
    ) -> StreamSubscription:
        """Call ``deliver`` with every event from token ``offset`` on, in order, until the last one.

        It is called on the backend's own thread, and must not block. Where the backend is closed before the
        last event, :class:`ClientClosed` is delivered.

        Args:
          within: Longest wait for the beginning, in seconds; None where only patience counts.

        Raises:
          ResultTimeout: It could not begin within that time.
          InvalidRequest: The offset is not possible.
          ClientClosed: The backend was closed, or belongs to another process.
          JobNotFound: There is no such job.
        """


class ModelPort(Protocol):
    """Models that can be asked for."""

    @over_http("GET", "/v1/models")
    def models(self) -> list[ModelInfo]:
        """What can be asked for, in the order of configuration."""


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
