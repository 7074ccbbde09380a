"""The answer that carries a job's stream."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import Response

from tether.gateway.open_stream import OpenStream
from tether.gateway.open_streams import OpenStreams

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


class EventStreamResponse(Response):
    """Sends a stream until its end, and closes it whatever happens."""

    media_type = "text/event-stream"

    def __init__(self, streams: OpenStreams, stream: OpenStream) -> None:
        # Proxies shall neither keep events back nor store them.
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        # An empty body would say so: how long a stream gets, nobody knows.
        self.raw_headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
        self._streams = streams
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_chunk(chunk: bytes) -> None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

        watcher = asyncio.create_task(self._watch_for_end(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._stream.send_all(send_chunk)
            if not self._stream.is_stuck:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            watcher.cancel()
            self._streams.close(self._stream)

    async def _watch_for_end(self, receive: Receive) -> None:
        """Notice that the reader has gone, also while there is nothing to send."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._stream.abandon()
