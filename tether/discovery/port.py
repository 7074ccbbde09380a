"""The presence port: how announcements get from workers to whoever places jobs, whatever carries them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from tether.discovery.wire import Presence


class Heard(NamedTuple):
    """An envelope, and the milliseconds that are left of its life."""

    envelope: bytes
    life_ms: int


class Announcer(Protocol):
    """The side of the worker. Safe to use from many threads."""

    def announce(self, envelope: bytes, presence: Presence) -> bool:
        """Tell everybody. Answers False where something as new or newer of the same worker is known.

        Raises:
          OUTAGE_ERRORS: Nobody can be told now; it can be sent again.
        """
        ...


class Subscription(Protocol):
    """News from the moment it was made. For one thread."""

    def next(self, timeout: float) -> bytes | None:
        """The next envelope; None if there is none within so many seconds.

        Raises:
          OUTAGE_ERRORS: News may have been missed: make a new subscription, then read all.
        """
        ...

    def close(self) -> None: ...


class PresenceSource(Protocol):
    """The side of the reader. What it hands out is not verified yet."""

    def read_all(self) -> Sequence[Heard]:
        """The newest envelope of each worker that lives.

        Raises:
          OUTAGE_ERRORS: Nothing can be learned now.
        """
        ...

    def subscribe(self) -> Subscription:
        """
        Raises:
          OUTAGE_ERRORS: Nothing can be learned now.
        """
        ...
