"""Ways between the parts of an installation: userspace TCP proxies that can be cut and stalled."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

CHUNK = 65_536
Answer = TypeVar("Answer")


@dataclass(eq=False)
class _Way:
    """One way, of which everything is touched in the loop's thread alone."""

    target: int | Path
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    is_cut: bool = False
    refused: int = 0
    held: int = 0
    server: asyncio.Server | None = None


class Ways:
    """Forwards connections by name. It owns the thread ``chaos-ways``, which has an event loop, until
    :meth:`close`.

    While a way is stalled, connections are accepted and nothing is forwarded; what was sent is forwarded
    later. While it is cut, connections are closed as soon as they are made.
    """

    def __init__(self) -> None:
        self._ways: dict[str, _Way] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos-ways", daemon=True)
        self._thread.start()

    def add(self, name: str, target: int | Path) -> int:
        """Open a way to a port on loopback, or to a Unix socket, and return its own port."""
        return self._do(self._add(name, target))

    def cut(self, name: str) -> int:
        """Close all connections, and any that is made from now on; return how many were closed."""
        return self._do(self._cut(name))

    def heal(self, name: str) -> int:
        """Forward what connects from now on; return how many connections were refused meanwhile."""
        return self._do(self._heal(name))

    def stall(self, name: str) -> None:
        """Forward nothing from now on."""
        self._do(self._stall(name))

    def go_on(self, name: str) -> int:
        """Forward again; return how often something was held back meanwhile."""
        return self._do(self._go_on(name))

    def name_of(self, port: int) -> str:
        """The way by which a connection with this port of ours comes to a server; empty where none does."""
        return self._do(self._name_of(port))

    def close(self) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _do(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    # In the loop's thread.

    async def _add(self, name: str, target: int | Path) -> int:
        way = _Way(target)
        way.goes_on.set()
        way.server = await asyncio.start_server(lambda *ends: self._accept(way, *ends), "127.0.0.1", 0)
        self._ways[name] = way
        port: int = way.server.sockets[0].getsockname()[1]
        return port

    async def _cut(self, name: str) -> int:
        way = self._ways[name]
        way.is_cut, way.refused = True, 0
        closed = len(way.writers)
        for writer in way.writers:
            writer.transport.abort()
        return closed // 2

    async def _heal(self, name: str) -> int:
        way = self._ways[name]
        way.is_cut = False
        return way.refused

    async def _stall(self, name: str) -> None:
        way = self._ways[name]
        way.held = 0
        way.goes_on.clear()

    async def _go_on(self, name: str) -> int:
        way = self._ways[name]
        way.goes_on.set()
        return way.held

    async def _name_of(self, port: int) -> str:
        for name, way in self._ways.items():
            for writer in way.writers:
                own = writer.get_extra_info("sockname")
                if isinstance(own, tuple) and own[1] == port:
                    return name
        return ""

    async def _close(self) -> None:
        for name, way in self._ways.items():
            await self._cut(name)
            way.goes_on.set()
            if way.server is not None:
                way.server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, way: _Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            if way.is_cut:
                way.refused += 1
                return
            await way.goes_on.wait()
            if isinstance(way.target, Path):
                far_reader, far_writer = await asyncio.open_unix_connection(way.target)
            else:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", way.target)
            ends.append(far_writer)
            if way.is_cut:
                way.refused += 1
                return
            way.writers.update(ends)
            async with asyncio.TaskGroup() as group:
                group.create_task(_forward(way, reader, far_writer))
                group.create_task(_forward(way, far_reader, writer))
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            # Who connected sees that the connection ends; cancelled is who is there at the end.
            pass
        finally:
            way.writers.difference_update(ends)
            for end in ends:
                end.transport.abort()


async def _forward(way: _Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        if not way.goes_on.is_set():
            way.held += 1
            await way.goes_on.wait()
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
