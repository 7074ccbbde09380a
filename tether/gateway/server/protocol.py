"""HTTP/1.1 as uvicorn speaks it, with limits to what a connection may keep without being served."""

from __future__ import annotations

import asyncio
import resource
from typing import Any

import h11
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol

from tether.errors import MalformedBody
from tether.gateway.responses import error_answer
from tether.telemetry import metrics

HEAD_SECONDS = 30.0
"""From when a connection is made, or a head begins: whoever sends half of one shall not keep a connection."""

LINGER_SECONDS = 10.0
"""So long the rest of a body is read and dropped that was answered early: a client that is cut off sooner may
not see the answer."""

PORTION = 64
"""Pieces of a body that a connection may hand over before others have their turn: about 2 ms."""

MAX_SMALL_CHUNKS = 1_024
"""Chunks that a body may come in, however small they are; beyond that, one for each :data:`CHUNK_BYTES`."""

CHUNK_BYTES = 1_024

RESERVED_DESCRIPTORS = 128
"""What the process needs beside its connections: for the database, Redis, files."""


def max_connections() -> int:
    """How many connections this process can have open and still do its work."""
    return max(resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVED_DESCRIPTORS, 1)


class PacedConnection(h11.Connection):
    """HTTP/1.1 in portions. A body may come in chunks of a byte, of each of which h11 makes an event in about
    20 µs, and what is read from a socket at once holds 40,000 of them.

    Attributes:
      is_exhausted: Whether there may be more events, left for the next portion.
    """

    def __init__(self, max_incomplete_event_size: int) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size)
        self.is_exhausted = False
        self._left = PORTION
        self._chunks = 0
        self._size = 0

    def begin_portion(self) -> None:
        """Let so many events through again."""
        self.is_exhausted = False
        self._left = PORTION

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return the next event, or that there is none for now.

        Raises:
          RemoteProtocolError: The bytes are no HTTP/1.1, or a body comes in too many chunks.
        """
        if not self._left:
            self.is_exhausted = True
            return h11.NEED_DATA
        event = super().next_event()
        if isinstance(event, h11.Data):
            self._left -= 1
            self._chunks += event.chunk_start
            self._size += len(event.data)
            if self._chunks > MAX_SMALL_CHUNKS + self._size // CHUNK_BYTES:
                raise h11.RemoteProtocolError("the body comes in too many chunks")
        elif isinstance(event, h11.Request):
            self._chunks = self._size = 0
        return event


class GatewayProtocol(H11Protocol):
    """One connection. The time limit of a head uses uvicorn's own timer, which is idle at that time."""

    conn: PacedConnection
    _head_ends_at: float | None = None
    _lingering: asyncio.TimerHandle | None = None
    _going_on: asyncio.Handle | None = None

    def __init__(self, config: Config, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        assert config.h11_max_incomplete_event_size is not None
        self.conn = PacedConnection(config.h11_max_incomplete_event_size)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base
        super().connection_made(transport)
        if len(self.connections) > max_connections():
            metrics.CONNECTIONS_REFUSED.inc()
            transport.abort()
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        for later in (self._lingering, self._going_on):
            if later is not None:
                later.cancel()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Begin to leave, as the server does: whoever is being answered hears that the connection ends with
        that. One that nobody uses stays open, or a request that is on its way would be cut off, until
        :meth:`close_if_idle`."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.default_headers = self.server_state.default_headers
            self.cycle.keep_alive = False

    def close_if_idle(self) -> None:
        """Close the connection, unless something is being asked or answered."""
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if not is_answering and not self.conn.trailing_data[0]:
            self.timeout_keep_alive_handler()

    def data_received(self, data: bytes) -> None:
        if self._going_on is None:
            self.conn.begin_portion()
        super().data_received(data)
        self._see_to_connection()

    def handle_events(self) -> None:
        """Handle a portion of what has come, and the rest in the loop's next rounds."""
        super().handle_events()
        if self.conn.is_exhausted and self._going_on is None and not self.transport.is_closing():
            # What comes meanwhile would only wait.
            self.transport.pause_reading()
            self._going_on = self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._going_on = None
        self.conn.begin_portion()
        self.handle_events()
        if self._going_on is None and not self.flow.read_paused:
            self.transport.resume_reading()
        self._see_to_connection()

    def _see_to_connection(self) -> None:
        """Set the timers that go with where the connection is now."""
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._await_head()
        else:
            self._head_ends_at = None
        if (
            self._lingering is None
            and self.conn.their_state is h11.SEND_BODY
            and self.cycle.response_complete
        ):
            self._lingering = self.loop.call_later(LINGER_SECONDS, self._cut_off)

    def send_400_response(self, msg: str) -> None:
        """What cannot be read as HTTP, answered in the form of all errors."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            # It was answered already, or is being answered.
            self.transport.abort()
            return
        refusal = error_answer(
            MalformedBody(
                "the request is not valid HTTP/1.1, its headers are too large, or its body comes in too many "
                "small chunks"
            )
        )
        headers = [*refusal.raw_headers, (b"connection", b"close")]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=bytes(refusal.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _await_head(self) -> None:
        if self._head_ends_at is None:
            self._head_ends_at = self.loop.time() + HEAD_SECONDS
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_at(self._head_ends_at, self.timeout_keep_alive_handler)

    def _cut_off(self) -> None:
        if self.conn.their_state is h11.SEND_BODY:
            self.transport.abort()
        self._lingering = None
