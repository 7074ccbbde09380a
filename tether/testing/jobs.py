"""Jobs of the fake: their state, moved as the table of states allows, and their streams."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from tether.dead_letters import LetterState
from tether.errors import ClientClosed, TetherError
from tether.histories import RUNNING, AttemptRecord
from tether.ids import BootId, JobId, PoolName, TenantId
from tether.jobs import NEXT, OWNER, JobError, JobRequest, JobState, Owner, Piece, Priority
from tether.outcomes import Letter
from tether.streams.events import Deliver, StreamEvent
from tether.streams.reader import StreamPosition, take

_QUEUE_ORDER = ("interactive", "standard", "batch")


class ForbiddenTransition(TetherError):
    """A job was moved in a way that its state does not allow: a fault of the fake, or of what drives it."""

    code = "transition_forbidden"


@dataclass(eq=False)
class FakeSubscription:
    """A reader of one fake stream."""

    deliver: Deliver
    place: StreamPosition
    closed: bool = False

    def close(self) -> None:
        """Deliver no more."""
        self.closed = True

    def end(self) -> None:
        """The client was closed."""
        if not self.closed:
            self.closed = True
            self.deliver(ClientClosed("the client was closed while a stream was followed; the job continues"))

    def take(self, event: StreamEvent, number: int) -> None:
        """Deliver what the reader has not seen of the event with this number."""
        if self.closed:
            return
        step = take(self.place, event, str(number))
        self.place = step.place
        for each in step.events:
            self.closed = each.is_last
            self.deliver(each)


@dataclass(eq=False)
class FakeJob:
    """One job. Times are milliseconds since the epoch.

    Attributes:
      number: Its place in the order of submission.
      due_at: When it may be placed.
      failed: Attempts that failed.
      requested: The end that somebody asked for.
      attempt: What is left to do of the attempt that runs.
      records: Its attempts; the last one is without an end while it runs.
      is_busy: Whether its attempt is in a step at this moment: its model has been asked.
      letter: Its dead letter.
      closed, closed_at: What became of that, and when.
      degraded_from: Nothing is: each model of the fake can begin at once.
      retry_of, retried_as: The jobs that it is linked with.
      later_priority: What it was given since; None where it has that of its request.
    """

    job_id: JobId
    number: int
    tenant: TenantId
    request: JobRequest
    created_at: int
    due_at: int
    state: JobState = JobState.ACCEPTED
    dispatch: int = 1
    failed: int = 0
    requested: JobState | None = None
    error: JobError | None = None
    pieces: tuple[Piece, ...] = ()
    input_tokens: int = 0
    finished_at: int | None = None
    attempt: Iterator[None] | None = None
    is_busy: bool = False
    records: list[AttemptRecord] = field(default_factory=list)
    letter: Letter | None = None
    closed: LetterState = LetterState.OPEN
    closed_at: int | None = None
    retry_of: JobId | None = None
    degraded_from: None = None
    later_priority: Priority | None = None
    retried_as: JobId | None = None
    events: list[StreamEvent] = field(default_factory=list)
    readers: list[FakeSubscription] = field(default_factory=list)

    @property
    def order(self) -> tuple[int, int]:
        """Whose turn is first: by priority, then by submission."""
        return _QUEUE_ORDER.index(self.priority), self.number

    @property
    def priority(self) -> Priority:
        """The priority that it has now."""
        return self.later_priority or self.request.priority

    def move(self, state: JobState, by: Owner) -> None:
        """Change the state.

        Raises:
          ForbiddenTransition: It cannot follow, or the other side owns the job.
        """
        if state not in NEXT[self.state] or OWNER[self.state] is not by:
            raise ForbiddenTransition(
                f"job {self.job_id} is {self.state}, which {OWNER[self.state]} decides about: "
                f"{by} cannot make it {state}"
            )
        self.state = state

    def say(self, kind: str, pieces: tuple[Piece, ...] = (), **details: Any) -> None:
        """Write an event, and deliver it."""
        self.pieces += pieces
        event = StreamEvent(kind=kind, offset=len(self.pieces), pieces=pieces, details=details)
        self.events.append(event)
        for reader in list(self.readers):
            reader.take(event, len(self.events))
        self.readers = [reader for reader in self.readers if not reader.closed]

    def begin_attempt(self, worker: BootId, pool: PoolName, now_ms: int) -> None:
        """Note that an attempt begins."""
        self.records.append(
            AttemptRecord(
                dispatch=self.dispatch,
                attempt=1,
                worker=worker,
                pool=pool,
                started_at=now_ms,
                start_offset=len(self.pieces),
                cause=RUNNING,
            )
        )

    def end_attempt(self, cause: str, now_ms: int, error: JobError | None = None) -> None:
        """Note how the running attempt ends."""
        self.records[-1] = replace(
            self.records[-1],
            ended_at=now_ms,
            offset=len(self.pieces),
            cause=cause,
            went="database" if cause == "failed" else "end",
            outcome=cause,
            error=error,
        )

    def follow(self, reader: FakeSubscription) -> None:
        """Deliver what was, and what will be."""
        for number, event in enumerate(list(self.events), 1):
            reader.take(event, number)
        if not reader.closed:
            self.readers.append(reader)
