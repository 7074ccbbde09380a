"""The answer that carries a job's stream."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.responses import Response

from tether.gateway.sse.open_stream import OpenStream
from tether.gateway.sse.open_streams import OpenStreams

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


class EventStreamResponse(Response):
    """Sends a stream until its end, and closes it whatever happens."""

    media_type = "text/event-stream"

    def __init__(
        self, streams: OpenStreams, stream: OpenStream, headers: Mapping[str, str] | None = None
    ) -> None:
        # Proxies shall neither keep events back nor store them.
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no", **(headers or {})})
        # An empty body would say so: how long a stream gets, nobody knows.
        self.raw_headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
        self.stream = stream
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watcher = asyncio.create_task(self._watch_for_end(receive))
        try:
            await self.send_stream(scope, receive, send)
        finally:
            watcher.cancel()
            self._streams.close(self.stream)
            await self.leave()

    async def send_stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, head and all."""

        async def send_chunk(chunk: bytes) -> None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

        await self.begin(send)
        await self.stream.send_all(send_chunk)
        if not self.stream.is_stuck:
            await self.finish(send)

    async def leave(self) -> None:
        """Called at the end, whatever that is."""

    async def begin(self, send: Send) -> None:
        """Send the head."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})

    async def finish(self, send: Send) -> None:
        """Send the end."""
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _watch_for_end(self, receive: Receive) -> None:
        """Notice that the reader has gone, also while there is nothing to send."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.stream.abandon()
