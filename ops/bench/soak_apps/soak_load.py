"""The clients of the soak: jobs at a steady rate over HTTP, each on a connection of its own.

    soak_load.py PORT KEY RATE SECONDS

Every second, and once more when the last job has ended, it says in a line of JSON how many jobs have ended,
are under way, and have ended otherwise than they should have.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from soak_prompts import BROKEN, REFUSED

PERIOD = 40
"""After so many jobs their kinds repeat."""

STRIDE = 7
"""Kinds are spread over a period by this."""

POLL_SECONDS = 0.2
MAX_COMPLAINTS = 20
PROMPT = "word " * 60


class Connection:
    """One connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
        self._reader = reader
        self._writer = writer
        self._key = key

    async def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Send a request and read its whole answer: status and document."""
        status, headers = await self._send(method, path, body)
        data = await self._reader.readexactly(int(headers["content-length"]))
        return status, json.loads(data)

    async def stream(
        self,
        method: str,
        path: str,
        body: object = None,
        on_data: Callable[[], Awaitable[None]] | None = None,
    ) -> str:
        """Send a request and read its events to the end of the stream.

        Args:
          on_data: Called when the first token has come.

        Returns:
          The last event as it came.
        """
        status, _ = await self._send(method, path, body, closing=True)
        if status != 200:
            raise ValueError(f"{path}: {status}")
        kept = b""
        async for line in self._reader:
            if line.startswith((b"event:", b"data:")):
                kept = (kept + line)[-2_000:]
            if on_data is not None and (b"delta" in line):
                await on_data()
                on_data = None
        return kept.decode()

    async def _send(
        self, method: str, path: str, body: object, *, closing: bool = False
    ) -> tuple[int, dict[str, str]]:
        data = b"" if body is None else json.dumps(body).encode()
        head = [
            f"{method} {path} HTTP/1.1",
            "host: soak",
            f"authorization: Bearer {self._key}",
            f"content-length: {len(data)}",
            "content-type: application/json",
            *(["connection: close"] if closing else []),
        ]
        self._writer.write("\r\n".join([*head, "", ""]).encode() + data)
        status = int((await self._reader.readline()).split()[1])
        headers = {}
        while (line := (await self._reader.readline()).decode().strip()) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return status, headers


class Load:
    """All clients together."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._key = key
        self._kinds: list[Callable[[Connection, int], Awaitable[bool]]] = [
            *[self._followed] * 24,
            *[self._chat_stream] * 5,
            *[self._chat] * 4,
            *[self._polled] * 2,
            *[self._cancelled] * 2,
            *[self._refused, self._broken, self._expired],
        ]
        assert len(self._kinds) == PERIOD
        self.ended = self.under_way = self.surprises = 0

    async def run_job(self, number: int) -> None:
        """Run one job to its end."""
        kind = self._kinds[number * STRIDE % PERIOD]
        self.under_way += 1
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            try:
                is_right = await kind(Connection(reader, writer, self._key), number)
            finally:
                writer.close()
        except (OSError, ValueError, LookupError, EOFError) as error:
            is_right = False
            self._complain(f"{kind.__name__} {number}: {type(error).__name__}: {error}")
        else:
            if not is_right:
                self._complain(f"{kind.__name__} {number}: it ended otherwise")
        self.under_way -= 1
        self.ended += 1
        self.surprises += not is_right

    def _complain(self, words: str) -> None:
        if self.surprises < MAX_COMPLAINTS:
            print(words, file=sys.stderr, flush=True)

    async def _submit(self, connection: Connection, number: int, **fields: object) -> str:
        request = {
            "model": "short",
            "prompt": f"{number} {PROMPT}",
            "labels": {"user": f"u{number}", "team": f"t{number % 10}"},
            "correlation_id": f"c{number}",
            "retry_token": f"r{number}",
            **fields,
        }
        status, document = await connection.ask("POST", "/v1/jobs", request)
        if status != 202:
            raise ValueError(f"submit: {status} {document}")
        if number % 10 == 0:
            status, again = await connection.ask("POST", "/v1/jobs", request)
            if (status, again["job_id"]) != (200, document["job_id"]):
                raise ValueError(f"submit again: {status} {again}")
        return str(document["job_id"])

    async def _followed(self, connection: Connection, number: int) -> bool:
        job_id = await self._submit(connection, number)
        return "event: finished" in await connection.stream("GET", f"/v1/jobs/{job_id}/stream")

    async def _polled(self, connection: Connection, number: int) -> bool:
        job_id = await self._submit(connection, number, priority="batch")
        while True:
            await asyncio.sleep(POLL_SECONDS)
            _, document = await connection.ask("GET", f"/v1/jobs/{job_id}")
            if document["finished_at"]:
                return bool(document["state"] == "succeeded")

    async def _chat_stream(self, connection: Connection, number: int) -> bool:
        body = {**_chat(number), "stream": True}
        return "[DONE]" in await connection.stream("POST", "/v1/chat/completions", body)

    async def _chat(self, connection: Connection, number: int) -> bool:
        status, document = await connection.ask("POST", "/v1/chat/completions", _chat(number))
        return status == 200 and bool(document["choices"][0]["message"]["content"])

    async def _cancelled(self, connection: Connection, number: int) -> bool:
        job_id = await self._submit(connection, number, model="slow")

        async def cancel() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            await Connection(reader, writer, self._key).ask("DELETE", f"/v1/jobs/{job_id}")
            writer.close()

        last = await connection.stream("GET", f"/v1/jobs/{job_id}/stream", on_data=cancel)
        return '"cancelled"' in last

    async def _refused(self, connection: Connection, number: int) -> bool:
        return await self._ends_badly(connection, number, "dead", prompt=f"{REFUSED} {number}")

    async def _broken(self, connection: Connection, number: int) -> bool:
        return await self._ends_badly(connection, number, "dead", prompt=f"{BROKEN} {number}")

    async def _expired(self, connection: Connection, number: int) -> bool:
        return await self._ends_badly(connection, number, "expired", model="slow", time_limit_ms=1_000)

    async def _ends_badly(self, connection: Connection, number: int, state: str, **fields: object) -> bool:
        job_id = await self._submit(connection, number, **fields)
        last = await connection.stream("GET", f"/v1/jobs/{job_id}/stream")
        if f'"{state}"' not in last:
            raise ValueError(f"it was to be {state}, and ended with {last}")
        return True


def _chat(number: int) -> dict[str, object]:
    return {"model": "short", "messages": [{"role": "user", "content": f"{number} {PROMPT}"}]}


async def run(port: int, key: str, rate: float, seconds: float) -> None:
    load = Load(port, key)
    jobs: set[asyncio.Task[None]] = set()
    began = time.monotonic()
    told = started = 0
    while jobs or time.monotonic() - began < seconds:
        passed = time.monotonic() - began
        while started < min(passed, seconds) * rate:
            job = asyncio.create_task(load.run_job(started))
            jobs.add(job)
            job.add_done_callback(jobs.discard)
            started += 1
        if passed >= told + 1:
            told += 1
            tell(load)
        await asyncio.sleep(min(1 / rate, 0.02))
    tell(load)


def tell(load: Load) -> None:
    counts = {"ended": load.ended, "under_way": load.under_way, "surprises": load.surprises}
    print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    asyncio.run(run(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), float(sys.argv[4])))
