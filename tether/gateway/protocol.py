"""HTTP/1.1 as uvicorn speaks it, with a limit to how long the head of a request may take to come."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 30.0
"""From when a connection is made, or a head begins: whoever sends half of one shall not keep a connection."""


class GatewayProtocol(H11Protocol):
    """One connection. The time limit uses uvicorn's own timer, which is idle while a head is awaited."""

    _head_ends_at: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._await_head()
        else:
            self._head_ends_at = None

    def _await_head(self) -> None:
        if self._head_ends_at is None:
            self._head_ends_at = self.loop.time() + HEAD_SECONDS
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_at(self._head_ends_at, self.timeout_keep_alive_handler)
