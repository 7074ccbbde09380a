"""One reader of one stream: what of it was delivered, and what an event adds to that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from tether.client.backend import Deliver, StreamEvent
from tether.client.stream_archive import Ended
from tether.errors import TetherError
from tether.token_log import RUN_STEP, Event, new_part


class Hub(Protocol):
    """Who reads for followers."""

    def drop(self, follower: Follower) -> None:
        """Deliver nothing more to it."""


@dataclass(eq=False)
class Follower:
    """One subscription. The hub's thread alone changes it, but for ``closed``.

    Attributes:
      run, offset: What was delivered: tokens of that run.
      cursor: Id of the last entry that was read.
      heard_at: When something was delivered, or it began; seconds of the hub's clock.
      waits_until: It is not read before, by the same clock: tokens are missing in its stream, and may come
        from the database. 0 where it is read.
    """

    hub: Hub
    job_id: str
    deliver: Deliver
    offset: int
    run: int = 0
    cursor: str = "0"
    heard_at: float = 0.0
    waits_until: float = 0.0
    closed: bool = field(default=False)

    def close(self) -> None:
        """Deliver no more."""
        self.hub.drop(self)

    def rewind(self) -> None:
        """Read again from what was delivered: events there may come twice, tokens do not."""
        self.cursor = f"{self.run * RUN_STEP + self.offset}-0"

    def take_all(self, events: Iterable[Event]) -> bool:
        """Deliver what is new in events. Answers False, rewound, where tokens before one are missing."""
        for event in events:
            if self.closed:
                return True
            if order(event.entry_id) > order(self.cursor) and not self.take(event):
                self.rewind()
                return False
        return True

    def take(self, event: Event) -> bool:
        """Deliver what is new in an event. Answers False where tokens before it are missing."""
        self.cursor = event.entry_id
        if event.run < self.run:
            return True
        if event.run > self.run:
            self.run = event.run
            if event.kind != "restarted":
                # The entry that told of the restart is gone with what Redis lost.
                self.offset = 0
                self._pass_on(StreamEvent(kind="restarted", run=event.run, offset=0))
        if event.kind == "restarted":
            self.offset = event.offset
            self._pass_on(StreamEvent(kind="restarted", run=event.run, offset=event.offset))
        elif event.kind == "delta":
            pieces = new_part(event, self.offset)
            if event.offset - len(pieces) > self.offset:
                return False
            if pieces:
                self.offset = event.offset
                self._pass_on(StreamEvent(kind="delta", run=event.run, offset=event.offset, pieces=pieces))
        elif event.is_last and event.kind == "finished" and event.offset > self.offset:
            return False
        else:
            self._pass_on(
                StreamEvent(kind=event.kind, run=event.run, offset=event.offset, details=event.details())
            )
        return True

    def take_ended(self, ended: Ended) -> None:
        """Deliver what is missing, from the database."""
        if ended.run > self.run:
            self.run, self.offset = ended.run, 0
            self._pass_on(StreamEvent(kind="restarted", run=ended.run, offset=0))
        missing = ended.pieces[self.offset :]
        if missing:
            self.offset = len(ended.pieces)
            self._pass_on(StreamEvent(kind="delta", run=self.run, offset=self.offset, pieces=missing))
        self._pass_on(ended.last)

    def give_up(self, error: TetherError) -> None:
        """Deliver an error as the last that comes."""
        if not self.closed:
            self.closed = True
            self.deliver(error)

    def _pass_on(self, event: StreamEvent) -> None:
        if not self.closed:
            if event.is_last:
                self.closed = True
            self.deliver(event)


def order(entry_id: str) -> tuple[int, int]:
    """What ids of entries are compared by."""
    first, _, second = entry_id.partition("-")
    return int(first), int(second or 0)
