"""Follows one source of presence, in a thread: news as it comes, and all of it again in each interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from tether.broker.redis.connections import OUTAGE_ERRORS
from tether.discovery.announcements.presence import Order
from tether.discovery.port import MAX_AT_ONCE, News, PresenceSource, PresenceSubscription, ReadsNewer
from tether.ids import WorkerId
from tether.loops import Loop, Outage
from tether.telemetry.logs import get_logger

MAX_LISTEN_SECONDS = 0.25
"""How long a thread may take to notice that it shall stop, or that a worker's life has ended."""

PAUSE_AFTER_OUTAGE_SECONDS = 0.5


class Listener(Protocol):
    """Whoever wants to know. Its methods are called in the thread of the follower."""

    def newest(self) -> Mapping[WorkerId, Order]:
        """The newest order known of each worker."""

    def hear(self, source: str, news: Sequence[News]) -> None:
        """There are news."""

    def pass_time(self) -> None:
        """Called at least every half a second, outages of the source aside that take it longer."""

    def gather_seconds(self) -> float:
        """How long news shall gather before they are handed out again."""

    def state_changed(self) -> None:
        """All was read, or the source went away."""


class PresenceFollower:
    """Owns a thread, from :meth:`start` to :meth:`stop`.

    Attributes:
      loop: That of the thread.
      has_read: Whether all was read once.
      is_away: Whether the source could not be read the last time.
      in_touch_at: When there was news, or all was read, by the clock given; None for never.
    """

    def __init__(
        self,
        name: str,
        source: PresenceSource,
        listener: Listener,
        *,
        loop_name: str,
        clock: Callable[[], int],
        interval_ms: int,
    ) -> None:
        self.has_read = False
        self.is_away = False
        self.in_touch_at: int | None = None
        self._name = name
        self._source = source
        self._listener = listener
        self._clock = clock
        self._interval = interval_ms
        self._subscription: PresenceSubscription | None = None
        self._read_again_at = 0
        log = get_logger("tether.fleet")
        self.loop = Loop(
            loop_name,
            self._step,
            at_end=self._unsubscribe,
            max_pause_seconds=PAUSE_AFTER_OUTAGE_SECONDS,
            outage=Outage(
                OUTAGE_ERRORS,
                log,
                begins="Presence cannot be read. The last known fleet stays.",
                ends="Presence is read again.",
                source=name,
            ),
            log=log,
        )

    def start(self) -> None:
        self.loop.start()

    def stop(self) -> None:
        """End the thread."""
        self.loop.stop()

    def _step(self) -> float:
        try:
            return self._listen()
        except Exception:
            self._unsubscribe()
            self.is_away = True
            self._listener.state_changed()
            self._listener.pass_time()
            raise

    def _unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.close()

    def _listen(self) -> float:
        if self._subscription is None:
            self._subscription = self._source.subscribe()
            self._read_again_at = self._clock()
        now = self._clock()
        if now >= self._read_again_at:
            self._read()
            self._read_again_at = now + self._interval
        news = self._subscription.next(MAX_LISTEN_SECONDS)
        if news:
            self.in_touch_at = self._clock()
            self._listener.hear(self._name, news)
        self._listener.pass_time()
        # Each batch has a cost that grows with the fleet: many small ones are made a few larger ones.
        return self._listener.gather_seconds() if news and len(news) < MAX_AT_ONCE else 0

    def _read(self) -> None:
        source = self._source
        news: Sequence[News] = (
            source.read_newer(self._listener.newest())
            if isinstance(source, ReadsNewer)
            else source.read_all()
        )
        for place in range(0, len(news), MAX_AT_ONCE):
            self._listener.hear(self._name, news[place : place + MAX_AT_ONCE])
        self.in_touch_at = self._clock()
        self.has_read, self.is_away = True, False
        self._listener.state_changed()
