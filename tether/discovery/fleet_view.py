"""The fleet as this process knows it, kept up to date by a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from tether.broker.connections import OUTAGE_ERRORS
from tether.discovery import fleet as fleets
from tether.discovery.fleet import Fleet, PoolView
from tether.discovery.port import PresenceSource, Subscription
from tether.discovery.wire import verify
from tether.errors import InvalidAnnouncement
from tether.telemetry.logs import get_logger

LONGEST_LISTEN_SECONDS = 0.25
"""How long the thread may take to notice that it shall stop, or that a worker's life has ended."""

PAUSE_AFTER_OUTAGE_SECONDS = 0.5

MOST_COMPLAINTS = 256
"""Different refusals of announcements that are logged, each once."""


FRESH_POOLS_MS = 100
"""How long the pools of an unchanged fleet are known: lives that end in between are noticed so late."""


def monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class FleetView:
    """Holds the current :class:`~tether.discovery.fleet.Fleet`.

    It owns the thread ``tether-fleet``, from :meth:`start` to :meth:`stop`: it listens for news, and reads
    all again after each connection and in each interval. While the source is away the last fleet stays, and
    its members expire by themselves.
    """

    def __init__(
        self,
        source: PresenceSource,
        trusted: Callable[[str], bool],
        clock: Callable[[], int] = monotonic_ms,
        *,
        interval_ms: int = 5_000,
        expiry_ms: int = 15_000,
    ) -> None:
        """
        Args:
          trusted: Whether announcements of a public key, in hexadecimal, count.
          clock: Milliseconds of a monotonic clock.
        """
        self._source = source
        self._trusted = trusted
        self._clock = clock
        self._interval = interval_ms
        self._log = get_logger("tether.fleet")
        self._news = threading.Condition()
        self._known_pools: tuple[Fleet, int, tuple[PoolView, ...]] | None = None
        self._fleet = Fleet(interval_ms=interval_ms, expiry_ms=expiry_ms)
        self._callbacks: tuple[Callable[[Fleet], None], ...] = ()
        self._complaints: set[str] = set()
        self._has_read = False
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tether-fleet", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._is_stopping.set()
        with self._news:
            self._news.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def fleet(self) -> Fleet:
        """Those that live now."""
        return fleets.expire(self._fleet, self._clock())

    def pools(self) -> tuple[PoolView, ...]:
        """The pools that live workers draw from now, by name."""
        fleet, now = self._fleet, self._clock()
        known = self._known_pools
        if known is None or known[0] is not fleet or now - known[1] >= FRESH_POOLS_MS:
            known = self._known_pools = (fleet, now, fleets.pools(fleet, now))
        return known[2]

    def on_change(self, callback: Callable[[Fleet], None]) -> Callable[[], None]:
        """Call ``callback`` with the new fleet after each announcement and each end of a life, in the thread
        that noticed it. It must be quick; what it raises is logged. Answers a function that ends that."""
        with self._news:
            self._callbacks = (*self._callbacks, callback)
        return lambda: self._forget(callback)

    def _forget(self, callback: Callable[[Fleet], None]) -> None:
        with self._news:
            self._callbacks = tuple(one for one in self._callbacks if one is not callback)

    def wait_for(self, predicate: Callable[[Fleet], bool], timeout: float) -> bool:
        """Wait until ``predicate`` holds for the fleet, at most so many seconds. Answers whether it does."""
        with self._news:
            return self._news.wait_for(lambda: predicate(self.fleet), timeout)

    def wait_until_read(self, timeout: float) -> bool:
        """Wait until all was read once, at most so many seconds. Answers whether it was."""
        with self._news:
            return self._news.wait_for(lambda: self._has_read or self._is_stopping.is_set(), timeout)

    def distrust_boot(self, boot_id: str) -> None:
        """Send nothing to a worker whose attempt was lost, until it is heard of again."""
        self._change(lambda fleet: fleets.unroutable(fleet, boot_id))

    def _run(self) -> None:
        away = False
        while not self._is_stopping.is_set():
            subscription = None
            try:
                subscription = self._source.subscribe()
                away = False
                self._listen(subscription)
            except OUTAGE_ERRORS as error:
                if not away:
                    self._log.warning(
                        "Presence cannot be read. The last known fleet stays.", error=str(error)
                    )
                away = True
            except Exception:
                self._log.exception("Reading presence failed. Going on.")
            finally:
                if subscription is not None:
                    subscription.close()
            self._expire()
            self._is_stopping.wait(PAUSE_AFTER_OUTAGE_SECONDS)

    def _listen(self, subscription: Subscription) -> None:
        read_again_at = self._clock()
        while not self._is_stopping.is_set():
            now = self._clock()
            if now >= read_again_at:
                self._read_all()
                read_again_at = now + self._interval
            envelope = subscription.next(LONGEST_LISTEN_SECONDS)
            if envelope is not None:
                self._hear(envelope, None)
            self._expire()

    def _read_all(self) -> None:
        for envelope, life_ms in self._source.read_all():
            self._hear(envelope, life_ms)
        with self._news:
            self._has_read = True
            self._news.notify_all()

    def _hear(self, envelope: bytes, life_ms: int | None) -> None:
        try:
            presence = verify(envelope, self._trusted)
        except InvalidAnnouncement as error:
            self._complain(error)
            return
        self._change(lambda fleet: fleets.apply(fleet, presence, self._clock(), life_ms))

    def _complain(self, error: InvalidAnnouncement) -> None:
        # A stranger announces itself again and again; once is enough to know.
        if str(error) not in self._complaints and len(self._complaints) < MOST_COMPLAINTS:
            self._complaints.add(str(error))
            self._log.warning("An announcement does not count.", reason=error.reason, error=str(error))

    def _expire(self) -> None:
        self._change(lambda fleet: fleets.expire(fleet, self._clock()))

    def _change(self, step: Callable[[Fleet], Fleet]) -> None:
        with self._news:
            changed = step(self._fleet)
            if changed is self._fleet:
                return
            self._fleet = changed
            self._news.notify_all()
        for callback in self._callbacks:
            try:
                callback(changed)
            except Exception:
                self._log.exception("Telling of a change of the fleet failed. Going on.")
