"""HTTP/1.1 as uvicorn speaks it, with limits to what a connection may keep without being served."""

from __future__ import annotations

import asyncio
import resource

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from tether.errors import MalformedBody
from tether.gateway.answers import error_answer
from tether.telemetry import metrics

HEAD_SECONDS = 30.0
"""From when a connection is made, or a head begins: whoever sends half of one shall not keep a connection."""

LINGER_SECONDS = 10.0
"""So long the rest of a body is read and dropped that was answered early: a client that is cut off sooner may
not see the answer."""

RESERVED_DESCRIPTORS = 128
"""What the process needs beside its connections: for the database, Redis, files."""


def most_connections() -> int:
    """How many connections this process can have open and still do its work."""
    return max(resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVED_DESCRIPTORS, 1)


class GatewayProtocol(H11Protocol):
    """One connection. The time limit of a head uses uvicorn's own timer, which is idle at that time."""

    _head_ends_at: float | None = None
    _lingering: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base
        super().connection_made(transport)
        if len(self.connections) > most_connections():
            metrics.CONNECTIONS_REFUSED.inc()
            transport.abort()
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
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
        refusal = error_answer(
            MalformedBody("what was sent is not HTTP/1.1, or its head is larger than is taken here")
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
