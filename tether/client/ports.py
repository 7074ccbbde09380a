"""What a client needs from whatever carries its calls: the database and Redis, a gateway, or a fake.

Each subject is a port of its own: a capability adds a port, and an implementation of it to each carrier. Over
HTTP a method is carried by its declaration, see :func:`~tether.client.operations.over_http`. Ports with such
methods have modules of their own: who submits a job and follows it pays for none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tether.client.change_port import JobChangePort
    from tether.client.dead_message_port import DeadMessagePort
    from tether.client.job_port import JobPort
    from tether.client.letter_port import LetterPort
    from tether.client.model_port import ModelPort
    from tether.ids import JobId
    from tether.jobs import JobRequest, Submitted
    from tether.streams.events import Deliver, StreamSubscription


class SubmissionPort(Protocol):
    """Jobs: submitted."""

    def submit(self, requests: Sequence[JobRequest]) -> list[Submitted | Exception]:
        """Accept jobs: all are durable when it answers. One that is refused does not touch the others.

        The requests are valid: :func:`~tether.requests.options.check_request` made them.
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


class Backend(Protocol):
    """Carries a client's calls. Safe to use from many threads. Every method of its ports may block."""

    @property
    def submission_port(self) -> SubmissionPort: ...

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
