"""Follows one source of presence, in a thread: news as it comes, and all of it again in each interval."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from tether.broker.connections import OUTAGE_ERRORS
from tether.discovery.announcements.presence import Order
from tether.discovery.port import MOST_AT_ONCE, News, PresenceSource, ReadsNewer, Subscription
from tether.telemetry.logs import get_logger

LONGEST_LISTEN_SECONDS = 0.25
"""How long a thread may take to notice that it shall stop, or that a worker's life has ended."""

PAUSE_AFTER_OUTAGE_SECONDS = 0.5


class Listener(Protocol):
    """Whoever wants to know. Its methods are called in the thread of the follower."""

    def newest(self) -> Mapping[str, Order]:
        """The newest order known of each worker."""

    def hear(self, source: str, news: Sequence[News]) -> None:
        """There are news."""

    def pass_time(self) -> None:
        """Called at least every half a second, outages of the source aside that take it longer."""

    def gather_seconds(self) -> float:
        """How long news shall gather before they are handed out again."""

    def state_changed(self) -> None:
        """All was read, or the source went away."""


class Follower:
    """Owns a thread, from :meth:`start` until ``is_stopping`` is set.

    Attributes:
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
        thread_name: str,
        clock: Callable[[], int],
        interval_ms: int,
        is_stopping: threading.Event,
    ) -> None:
        self.has_read = False
        self.is_away = False
        self.in_touch_at: int | None = None
        self._name = name
        self._source = source
        self._listener = listener
        self._clock = clock
        self._interval = interval_ms
        self._is_stopping = is_stopping
        self._log = get_logger("tether.fleet")
        self._thread = threading.Thread(target=self._run, name=thread_name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        """Wait for the end of the thread, where it was started."""
        if self._thread.is_alive():
            self._thread.join()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._is_stopping.is_set():
            subscription = None
            try:
                subscription = self._source.subscribe()
                self._listen(subscription)
            except OUTAGE_ERRORS as error:
                if not self.is_away:
                    self._log.warning(
                        "Presence cannot be read. The last known fleet stays.",
                        source=self._name,
                        error=str(error),
                    )
                self._go_away()
            except Exception:
                self._log.exception("Reading presence failed. Going on.", source=self._name)
                self._go_away()
            finally:
                if subscription is not None:
                    subscription.close()
            self._listener.pass_time()
            self._is_stopping.wait(PAUSE_AFTER_OUTAGE_SECONDS)

    def _go_away(self) -> None:
        self.is_away = True
        self._listener.state_changed()

    def _listen(self, subscription: Subscription) -> None:
        read_again_at = self._clock()
        while not self._is_stopping.is_set():
            now = self._clock()
            if now >= read_again_at:
                self._read()
                read_again_at = now + self._interval
            news = subscription.next(LONGEST_LISTEN_SECONDS)
            if news:
                self.in_touch_at = self._clock()
                self._listener.hear(self._name, news)
            self._listener.pass_time()
            if news and len(news) < MOST_AT_ONCE:
                # Each batch has a cost that grows with the fleet: many small ones are made a few larger ones.
                self._is_stopping.wait(self._listener.gather_seconds())

    def _read(self) -> None:
        source = self._source
        news: Sequence[News] = (
            source.read_newer(self._listener.newest())
            if isinstance(source, ReadsNewer)
            else source.read_all()
        )
        for place in range(0, len(news), MOST_AT_ONCE):
            self._listener.hear(self._name, news[place : place + MOST_AT_ONCE])
        self.in_touch_at = self._clock()
        self.has_read, self.is_away = True, False
        self._listener.state_changed()
