"""A server on loopback that answers as a test says, request by request."""

import asyncio
import contextlib
import json
import threading
from dataclasses import dataclass

from tether.streams.events import event_id, event_to_json

TLS = b"\x16"
"""With which a secure connection begins."""

PHRASES = {200: "OK", 202: "Accepted", 503: "Service Unavailable"}


@dataclass(frozen=True)
class Request:
    """What a client sent."""

    method: str
    target: str
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


def head(status, content_type, headers=None, length=None):
    lines = [f"HTTP/1.1 {status} {PHRASES.get(status, 'Said')}"]
    told = {"content-type": content_type, **(headers or {})}
    if length is not None:
        told["content-length"] = str(length)
    lines += [f"{name}: {value}" for name, value in told.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def answer(status, body, content_type="application/json", headers=None):
    """A whole answer: a document, or bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def step(request, writer):
        writer.write(head(status, content_type, headers, len(data)) + data)
        await writer.drain()
        return True

    return step


def answer_by(make):
    """A document with status 200, made from the request."""

    async def step(request, writer):
        return await answer(200, make(request))(request, writer)

    return step


def refuse(error_status, code="store_unavailable", retryable=True, retry_after_ms=None, headers=None):
    """An error in the form of a gateway's."""
    return answer(error_status, error(code, retryable, retry_after_ms), headers=headers)


def error(code, retryable=True, retry_after_ms=None, message="it is so"):
    told = {"code": code, "message": message, "type": "server_error", "param": None}
    return {"error": {**told, "retryable": retryable, "retry_after_ms": retry_after_ms}}


async def cut(request, writer):
    """Close the connection in place of an answer."""
    return False


async def hang(request, writer):
    """Answer nothing until the client goes."""
    await asyncio.Event().wait()


def stream(*chunks, then="end"):
    """A stream of events, given as bytes or as events. Then its end, or the connection's (``cut``), or
    nothing (``hold``)."""

    async def step(request, writer):
        writer.write(head(200, "text/event-stream; charset=utf-8", {"transfer-encoding": "chunked"}))
        for chunk in chunks:
            data = chunk if isinstance(chunk, bytes) else frame(chunk)
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            await writer.drain()
        if then == "hold":
            await asyncio.Event().wait()
        if then == "end":
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        return then == "end"

    return step


def frame(event):
    place = event_id(event.run, event.offset)
    return f"id: {place}\nevent: {event.kind}\ndata: {json.dumps(event_to_json(event))}\n\n".encode()


def interrupted(code, retryable, retry_after_ms=None):
    data = json.dumps(error(code, retryable, retry_after_ms)["error"])
    return f"event: interrupted\ndata: {data}\n\n".encode()


class ScriptedGateway:
    """Owns a thread. Requests are answered by the steps of the script in order, and the last for ever.

    Attributes:
      requests: All that came.
      gone: Set when a client has closed a connection.
    """

    def __init__(self, *script):
        self.requests = []
        self.connections = 0
        self.gone = threading.Event()
        self._script = list(script)
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scripted-gateway")

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self):
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self):
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0, limit=2**20)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopping.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _talk(self, reader, writer):
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                request = await self._read(reader, writer)
                self.requests.append(request)
                step = self._script.pop(0) if len(self._script) > 1 else self._script[0]
                if not await self._do(step(request, writer), reader):
                    break
        writer.close()

    async def _do(self, doing, reader):
        """A step, ended when the client goes."""
        step = asyncio.ensure_future(doing)
        leaving = asyncio.ensure_future(reader.read(1))
        await asyncio.wait({step, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if step.done():
            if not leaving.done():
                leaving.cancel()
                await asyncio.wait({leaving})
            return step.result()
        self.gone.set()
        step.cancel()
        await asyncio.wait({step})
        return False

    async def _read(self, reader, writer):
        begin = await reader.readexactly(1)
        if begin == TLS:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await writer.drain()
            raise OSError("it speaks HTTP alone")
        lines = (begin + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ")
        headers = {}
        for line in filter(None, lines[1:]):
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return Request(method, target, headers, body)
