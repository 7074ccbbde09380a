"""Readers of the bench: follow streams, over HTTP or directly, and measure how old tokens are that arrive.

    edges_readers.py http PORT KEY SECONDS JOB...      edges_readers.py direct SECONDS JOB...

It says ``{"open": N}`` once every stream has begun, and after so many seconds ``{"delays": [...]}``: how many
milliseconds each token took from before the call that wrote it until a reader had it.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import threading
import time
from collections.abc import Sequence

import core_jobs

from tether import Tether
from tether.errors import TetherError
from tether.streams.events import StreamEvent

SETTLE_SECONDS = 2.0


class Delays:
    """What all readers have measured; only from :meth:`begin` on."""

    def __init__(self) -> None:
        self.found: list[float] = []
        self.is_open = False

    def note(self, text: str) -> None:
        if self.is_open:
            self.found.append((time.monotonic_ns() - int(text)) / 1e6)


class Reader(asyncio.Protocol):
    """One stream over HTTP, on a connection of its own."""

    def __init__(self, request: bytes, delays: Delays, begun: asyncio.Semaphore) -> None:
        self._request = request
        self._delays = delays
        self._begun: asyncio.Semaphore | None = begun
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"HTTP/1.1 ") and not line.startswith(b"HTTP/1.1 200"):
                print(line.decode(), file=sys.stderr)
                sys.exit(1)
            if line.startswith(b"data: ") and b'"texts"' in line:
                for text in json.loads(line[6:])["texts"]:
                    self._delays.note(text)
                if self._begun is not None:
                    self._begun.release()
                    self._begun = None


async def over_http(port: int, key: str, seconds: float, job_ids: Sequence[str]) -> list[float]:
    loop, delays, begun = asyncio.get_running_loop(), Delays(), asyncio.Semaphore(0)
    for job_id in job_ids:
        request = (
            f"GET /v1/jobs/{job_id}/stream HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n\r\n"
        ).encode()
        await loop.create_connection(
            lambda request=request: Reader(request, delays, begun), "127.0.0.1", port
        )
    for _ in job_ids:
        await begun.acquire()
    print(json.dumps({"open": len(job_ids)}), flush=True)
    # What was made while the streams were opened is read by then.
    await asyncio.sleep(SETTLE_SECONDS)
    delays.is_open = True
    await asyncio.sleep(seconds)
    return list(delays.found)


def directly(seconds: float, job_ids: Sequence[str]) -> list[float]:
    delays, begun = Delays(), threading.Semaphore(0)
    backend = Tether.direct(core_jobs.SETTINGS)._backend

    def follow(job_id: str) -> None:
        has_begun = False

        def deliver(found: StreamEvent | TetherError) -> None:
            nonlocal has_begun
            for piece in getattr(found, "pieces", ()):
                delays.note(piece.text)
                if not has_begun:
                    has_begun = True
                    begun.release()

        backend.stream_port.follow(job_id, 0, deliver)

    for job_id in job_ids:
        follow(job_id)
    for _ in job_ids:
        begun.acquire()
    print(json.dumps({"open": len(job_ids)}), flush=True)
    time.sleep(SETTLE_SECONDS)
    delays.is_open = True
    time.sleep(seconds)
    found = list(delays.found)
    backend.close()
    return found


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    if sys.argv[1] == "http":
        told = asyncio.run(over_http(int(sys.argv[2]), sys.argv[3], float(sys.argv[4]), sys.argv[5:]))
    else:
        told = directly(float(sys.argv[2]), sys.argv[3:])
    print(json.dumps({"delays": told}), flush=True)
