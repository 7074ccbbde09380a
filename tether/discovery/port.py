"""The presence port: how announcements get from workers to whoever places jobs, whatever carries them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

from tether.discovery.announcements.presence import Order, Presence

MOST_AT_ONCE = 1_024
"""Pieces of news that a subscription hands out at once."""


class Heard(NamedTuple):
    """An envelope, and the milliseconds that are left of its life: None where it came straight from the
    worker and has all of it."""

    envelope: bytes
    life_ms: int | None


class Unroutable(NamedTuple):
    """Somebody found out that a worker lost an attempt: its announcements up to this order do not make it
    routable."""

    worker: str
    order: Order


News: TypeAlias = Heard | Unroutable


class Accepted(NamedTuple):
    """An announcement that was verified and counts, and the milliseconds that are left of its life."""

    presence: Presence
    envelope: bytes
    life_ms: int


class Announcer(Protocol):
    """The side of the worker. Safe to use from many threads."""

    def announce(self, envelope: bytes, presence: Presence) -> bool:
        """Tell everybody. Answers False where something else as new, or newer, of the same worker is known.

        Raises:
          OUTAGE_ERRORS: Nobody can be told now; it can be sent again.
        """
        ...


class Subscription(Protocol):
    """News from the moment it was made. For one thread."""

    def next(self, timeout: float) -> Sequence[News]:
        """Everything that is there, at most :data:`MOST_AT_ONCE`. Where nothing is there, it waits for the
        first for at most so many seconds; then, or where what came was no news, the answer is empty.

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


@runtime_checkable
class ReadsNewer(Protocol):
    """A source that can leave out what its reader has already."""

    def read_newer(self, known: Mapping[str, Order]) -> Sequence[News]:
        """The newest envelope of each worker that lives, if it is newer than ``known``, which holds orders by
        worker id. Who is unroutable comes after the envelopes.

        Raises:
          OUTAGE_ERRORS: Nothing can be learned now.
        """
        ...
