"""The fleet for whoever watches it: one thread reads it, and all get what changes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from tether.client.documents import json_bytes
from tether.config.settings import Settings
from tether.core.fleet_documents import change_to_json
from tether.core.fleet_looks import LOOK_SECONDS, FleetLooks, FleetNews
from tether.core.fleet_reading import FleetReading, open_fleet
from tether.errors import ClientClosed, TetherError
from tether.gateway.sse.encoding import RETRY_FIELD, frame_of_error
from tether.ids import WorkerId
from tether.streams.events import Deliver, StreamEvent, StreamSubscription
from tether.telemetry.logs import get_logger
from tether.threads import OwnedThread


class FleetChangeEncoder:
    """Writes what changes of the fleet. Events have no ids: who comes back is told of all workers again."""

    def __init__(self) -> None:
        self._fields_of_first = RETRY_FIELD

    def unfit(self, event: StreamEvent) -> TetherError | None:
        """Every change has a frame of its own."""
        return None

    def of_event(self, event: StreamEvent) -> Iterator[bytes]:
        frame = b"event: %b\ndata: %b\n\n" % (event.kind.encode(), json_bytes(event.details))
        return iter((self._take_fields_of_first() + frame,))

    def of_error(self, error: TetherError) -> bytes:
        return self._take_fields_of_first() + frame_of_error(error)

    def _take_fields_of_first(self) -> bytes:
        fields, self._fields_of_first = self._fields_of_first, b""
        return fields


class FleetWatch:
    """Owns the thread ``tether-gateway-fleet-watch``, from the first who watches to :meth:`close`. It has the
    fleet open while somebody watches, however many these are. Safe to use from many threads.
    """

    def __init__(
        self,
        settings: Settings,
        now_ms: Callable[[], int],
        *,
        opened: Callable[[Settings], AbstractContextManager[FleetReading]] = open_fleet,
    ) -> None:
        """
        Args:
          now_ms: Milliseconds since the epoch.
          opened: Opens the fleet.
        """
        self._settings = settings
        self._now_ms = now_ms
        self._opened = opened
        self._changed = threading.Condition()
        self._new: dict[_Watcher, None] = {}
        self._watching: dict[_Watcher, None] = {}
        self._is_closing = False
        self._log = get_logger("tether.gateway")
        self._thread = OwnedThread("gateway-fleet-watch", self._run, ask_to_stop=self._ask_to_stop)

    def follow(self, deliver: Deliver) -> StreamSubscription:
        """Tell somebody of all workers, and then of what changes. What comes last is an error.

        Args:
          deliver: Called on the thread; it must not block.

        Raises:
          ClientClosed: It is closed.
        """
        watcher = _Watcher(self, deliver)
        with self._changed:
            if self._is_closing:
                raise ClientClosed("the gateway is shutting down")
            # First: nobody who was refused may be told of the fleet, and keep it open.
            self._thread.start()
            self._new[watcher] = None
            self._changed.notify_all()
        return watcher

    def forget(self, watcher: _Watcher) -> None:
        """Tell somebody nothing more. A second call does nothing."""
        with self._changed:
            self._new.pop(watcher, None)
            self._watching.pop(watcher, None)
            self._changed.notify_all()

    def close(self) -> None:
        """End the thread, and tell all who watch."""
        self._thread.stop()
        self._tell_the_end(ClientClosed("the gateway is shutting down"))

    def _ask_to_stop(self) -> None:
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closing or self._new)
                if self._is_closing:
                    return
            try:
                with self._opened(self._settings) as reading:
                    self._watch(reading)
            except TetherError as error:
                error.outward = "the fleet cannot be read from Redis: try again once it responds"
                self._tell_the_end(error)
            except Exception as error:
                self._log.exception("The fleet cannot be watched.")
                self._tell_the_end(TetherError(f"the fleet cannot be watched ({type(error).__name__})"))

    def _watch(self, reading: FleetReading) -> None:
        looks = FleetLooks(reading)
        while True:
            with self._changed:
                self._changed.wait_for(self._is_over, LOOK_SECONDS)
                if self._is_over():
                    return
                new, self._new = self._new, {}
                known = list(self._watching)
                self._watching |= new
            names = reading.names
            if new:
                self._tell(new, looks.present(), names)
            self._tell((*known, *new), looks.look(), names)

    def _is_over(self) -> bool:
        return self._is_closing or not (self._new or self._watching)

    def _tell(self, watchers: Iterable[_Watcher], news: FleetNews, names: Mapping[WorkerId, str]) -> None:
        at = self._now_ms()
        documents: list[dict[str, Any]] = []
        if news.is_away is not None:
            documents.append({"kind": "away" if news.is_away else "back", "at": at})
        documents += (change_to_json(change, names, at) for change in news.changes)
        events = [StreamEvent(kind=document["kind"], details=document) for document in documents]
        for watcher in watchers:
            for event in events:
                watcher.deliver(event)

    def _tell_the_end(self, error: TetherError) -> None:
        with self._changed:
            watchers = [*self._new, *self._watching]
            self._new, self._watching = {}, {}
        for watcher in watchers:
            watcher.deliver(error)


class _Watcher:
    def __init__(self, watch: FleetWatch, deliver: Deliver) -> None:
        self.deliver = deliver
        self._watch = watch

    def close(self) -> None:
        self._watch.forget(self)
