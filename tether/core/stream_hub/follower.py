"""One reader of one stream: what of it was delivered, and what an event adds to that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from tether.core.stream_hub.archive import Ended
from tether.errors import TetherError
from tether.ids import JobId
from tether.streams.events import Deliver, StreamEvent
from tether.streams.reader import StreamPosition, take
from tether.streams.token_log import RUN_STEP, Event


class FollowerHub(Protocol):
    """Who reads for followers."""

    def drop(self, follower: StreamFollower) -> None:
        """Deliver nothing more to it."""


@dataclass(eq=False)
class StreamFollower:
    """One subscription. The hub's thread alone changes it, but for ``closed``.

    Attributes:
      place: What was delivered.
      cursor: Id of the last entry that was read.
      heard_at: When something was delivered, or it began; seconds of the hub's clock.
      has_ended: Whether the job had ended when this began: then the database is asked as soon as Redis was.
      waits_until: It is not read before, by the same clock: tokens are missing from its stream, and may come
        from the database. 0 where it is read.
    """

    hub: FollowerHub
    job_id: JobId
    deliver: Deliver
    place: StreamPosition
    cursor: str = "0"
    heard_at: float = 0.0
    has_ended: bool = False
    waits_until: float = 0.0
    closed: bool = field(default=False)

    def close(self) -> None:
        """Deliver no more."""
        self.hub.drop(self)

    def rewind(self) -> None:
        """Read again from what was delivered."""
        self.cursor = f"{self.place.run * RUN_STEP + self.place.offset}-0"

    def take_all(self, events: Iterable[Event]) -> bool:
        """Deliver what is new in events. If tokens before one are missing, rewind and return False."""
        for event in events:
            if self.closed:
                return True
            if order(event.entry_id) > order(self.cursor) and not self.take(event):
                self.rewind()
                return False
        return True

    def skip_to(self, entry_id: str) -> None:
        """Read on behind this entry, whether it could be read or not."""
        if order(entry_id) > order(self.cursor):
            self.cursor = entry_id

    def take(self, event: Event) -> bool:
        """Deliver what is new in an event. Return False if tokens before it are missing."""
        self.cursor = event.entry_id
        step = take(self.place, event.told(), event.entry_id)
        self.place = step.place
        for each in step.events:
            self._pass_on(each)
        return not step.lacks_tokens

    def take_ended(self, ended: Ended) -> None:
        """Deliver what is missing, from the database, whose word is the last."""
        run, offset = max(ended.run, self.place.run), len(ended.pieces)
        whole = StreamEvent(kind="delta", run=run, offset=offset, pieces=ended.pieces)
        step = take(self.place, whole)
        self.place = step.place
        for each in (*step.events, ended.last):
            self._pass_on(each)

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
