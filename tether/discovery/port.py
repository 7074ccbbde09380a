"""The presence port: how announcements get from workers to processes that place jobs, over any transport."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

from tether.discovery.announcements.presence import Order, Presence
from tether.ids import WorkerId

MAX_AT_ONCE = 1_024
"""Maximum number of news items that a subscription returns at once."""


class Heard(NamedTuple):
    """An envelope, and its remaining TTL in milliseconds: None if it came directly from the worker, with its
    full TTL."""

    envelope: bytes
    life_ms: int | None


class Unroutable(NamedTuple):
    """A worker has lost an attempt: its announcements up to this order do not make it routable."""

    worker: WorkerId
    order: Order


News: TypeAlias = Heard | Unroutable


class Accepted(NamedTuple):
    """An announcement that was verified and accepted, and its remaining TTL in milliseconds."""

    presence: Presence
    envelope: bytes
    life_ms: int


class Announcer(Protocol):
    """The worker's side. Thread-safe."""

    def announce(self, envelope: bytes, presence: Presence) -> bool:
        """Publish an announcement. Return False if a different one of the same worker, as new or newer, is
        known.

        Raises:
          OUTAGE_ERRORS: It cannot be published now; it can be retried.
        """
        ...


class PresenceSubscription(Protocol):
    """News from its creation on. For one thread."""

    def next(self, timeout: float) -> Sequence[News]:
        """Return all pending news, at most :data:`MAX_AT_ONCE`. If there is none, wait for the first for at
        most so many seconds; after that, or if what came was not news, return an empty sequence.

        Raises:
          OUTAGE_ERRORS: News may have been missed: create a new subscription, then read all.
        """
        ...

    def close(self) -> None: ...


class PresenceSource(Protocol):
    """The reader's side. What it returns is not verified yet."""

    def read_all(self) -> Sequence[Heard]:
        """Return the newest envelope of each live worker.

        Raises:
          OUTAGE_ERRORS: Nothing can be learned now.
        """
        ...

    def subscribe(self) -> PresenceSubscription:
        """
        Raises:
          OUTAGE_ERRORS: Nothing can be learned now.
        """
        ...


@runtime_checkable
class ReadsNewer(Protocol):
    """A source that can omit what its reader already has."""

    def read_newer(self, known: Mapping[WorkerId, Order]) -> Sequence[News]:
        """Return the newest envelope of each live worker that is newer than ``known``, which has orders by
        worker id. Unroutable workers come after the envelopes.

        Raises:
          OUTAGE_ERRORS: Nothing can be learned now.
        """
        ...
