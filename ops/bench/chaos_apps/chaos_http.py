"""Plain HTTP and server-sent events for the clients of a chaos run, which trust no response to come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

RESPONSE_SECONDS = 3.0
SILENCE_SECONDS = 3.5
"""Streams have a sign of life each second."""

BROKEN = (OSError, EOFError, TimeoutError, ValueError, LookupError)
"""What is raised where there was no response, or no whole one."""


@dataclass(frozen=True)
class SentEvent:
    """A server-sent event, with its data read as JSON."""

    kind: str
    event_id: str
    data: dict[str, Any]


class Door:
    """One gateway, for one API key; each request has a connection of its own."""

    def __init__(self, port: int, api_key: str) -> None:
        self._port = port
        self._api_key = api_key

    async def ask(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Send a request, and return the response's status and document.

        Raises:
          OSError, EOFError, TimeoutError, ValueError, LookupError: There was no whole response in time.
        """
        async with (
            asyncio.timeout(RESPONSE_SECONDS),
            self._exchange(method, path, body, headers or {}) as response,
        ):
            status, pieces = response
            data = b"".join([piece async for piece in pieces])
            return status, json.loads(data)

    @asynccontextmanager
    async def stream(self, job_id: str, last_event_id: str) -> AsyncIterator[AsyncIterator[SentEvent]]:
        """The events of a job's stream, from an id on.

        Raises:
          ConnectionRefusedError: It is refused, with any status but 200.
          OSError, EOFError, TimeoutError, ValueError, LookupError: See :meth:`ask`; also between events.
        """
        headers = {"last-event-id": last_event_id} if last_event_id else {}
        async with self._exchange("GET", f"/v1/jobs/{job_id}/stream", None, headers) as (status, pieces):
            if status != 200:
                raise ConnectionRefusedError(f"status {status}")
            yield _events(pieces)

    @asynccontextmanager
    async def _exchange(
        self, method: str, path: str, body: object, headers: Mapping[str, str]
    ) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        async with asyncio.timeout(RESPONSE_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            async with asyncio.timeout(RESPONSE_SECONDS):
                data = b"" if body is None else json.dumps(body).encode()
                lines = [
                    f"{method} {path} HTTP/1.1",
                    "host: chaos",
                    "connection: close",
                    f"authorization: Bearer {self._api_key}",
                    "content-type: application/json",
                    f"content-length: {len(data)}",
                    *(f"{name}: {value}" for name, value in headers.items()),
                ]
                writer.write("\r\n".join([*lines, "", ""]).encode() + data)
                await writer.drain()
                status = int((await _line(reader)).split()[1])
                received = {}
                while line := await _line(reader):
                    name, _, value = line.partition(":")
                    received[name.lower()] = value.strip()
            yield status, _pieces(reader, received)
        finally:
            writer.transport.abort()


async def _line(reader: asyncio.StreamReader) -> str:
    line = await reader.readline()
    if not line.endswith(b"\n"):
        raise EOFError("the connection ended in the middle")
    return line.decode().strip()


async def _pieces(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> AsyncIterator[bytes]:
    if headers.get("transfer-encoding") != "chunked":
        yield await reader.readexactly(int(headers["content-length"]))
        return
    while True:
        async with asyncio.timeout(SILENCE_SECONDS):
            size = int(await _line(reader), 16)
            data = await reader.readexactly(size + 2)
        if size == 0:
            return
        yield data[:-2]


async def _events(pieces: AsyncIterator[bytes]) -> AsyncIterator[SentEvent]:
    fields: dict[str, str] = {}
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            text = line.decode().rstrip("\r")
            if text.startswith(":"):
                continue
            if text:
                name, _, value = text.partition(":")
                fields[name] = value.removeprefix(" ")
            elif fields:
                yield SentEvent(
                    fields.get("event", "message"), fields.get("id", ""), json.loads(fields.get("data", "{}"))
                )
                fields = {}
