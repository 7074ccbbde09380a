"""The gateway's server: uvicorn over one socket that somebody else may keep open."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import uvicorn
from uvicorn.protocols.http.flow_control import CLOSE_HEADER

from tether.config.settings import Settings
from tether.core.control_plane import ControlPlane
from tether.errors import TetherError
from tether.gateway.app import make_app
from tether.gateway.server.listening import BACKLOG
from tether.gateway.server.protocol import GatewayProtocol
from tether.gateway.services import GatewayServices
from tether.processes.stopping import StopDeadline

ACCEPTED_AT_ONCE = 64
"""Connections that are accepted each time that the loop looks."""

KEEP_ALIVE_SECONDS = 75
"""How long a connection may be idle between two requests: longer than clients keep theirs."""

IDLE_SECONDS = 1.0
"""For so long a gateway that stops still takes requests on connections that are open already: who asks
oftener is told to make a new one, with an answer, instead of having it cut off."""

LAST_SECONDS = 1.0
"""So long before the time of requests is over, what still waits for an answer is told so."""

HURRIED_SECONDS = 0.5
"""What requests get to end once nobody waits for them any longer."""


class GatewayServer:
    """Serves until it is told to stop. :meth:`run` may be called on any thread."""

    def __init__(
        self,
        settings: Settings,
        listening: socket.socket,
        *,
        on_ready: Callable[[], None],
        beside: Callable[[ControlPlane], AbstractContextManager[object]] = contextlib.nullcontext,
        in_swarm: bool = False,
        deadline: StopDeadline | None = None,
    ) -> None:
        """
        Args:
          listening: Where; it is closed at the end.
          on_ready: Called once requests are answered.
          beside, in_swarm, deadline: See :class:`~tether.gateway.services.GatewayServices`.
        """
        self._settings = settings
        self._socket = listening
        self._on_ready = on_ready
        self._beside = beside
        self._in_swarm = in_swarm
        self._deadline = deadline or StopDeadline()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked_to_stop = threading.Event()
        self._is_hurried = threading.Event()
        self._is_replaced = False
        self._news: asyncio.Event | None = None
        self._failure: TetherError | None = None

    def run(self) -> None:
        """Serve until :meth:`stop`.

        Raises:
          TetherError: It cannot serve as it is set up.
        """
        asyncio.run(self._run())
        if self._failure is not None:
            raise self._failure

    def stop(self, *, is_replaced: bool = False) -> None:
        """End streams with a word about coming back, let requests end, then stop. From any thread.

        Args:
          is_replaced: Whether another process serves the same socket: clients have all the time that requests
            have to leave.
        """
        self._is_replaced = is_replaced
        self._asked_to_stop.set()
        self._wake()

    def hurry(self) -> None:
        """Stop, and wait for no request any longer. From any thread."""
        self._asked_to_stop.set()
        self._is_hurried.set()
        self._wake()

    def _wake(self) -> None:
        loop, news = self._loop, self._news
        if loop is not None and news is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(news.set)

    def _fail(self, error: TetherError) -> None:
        self._failure = error
        self.stop()

    async def _run(self) -> None:
        self._news = news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._asked_to_stop.is_set():
            news.set()
        edge = GatewayServices(
            self._settings,
            on_failure=self._fail,
            beside=self._beside,
            in_swarm=self._in_swarm,
            deadline=self._deadline,
        )
        limits = self._settings.gateway
        server = _Server(
            uvicorn.Config(
                make_app(self._settings, edge),
                http=GatewayProtocol,
                ws="none",
                lifespan="on",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                backlog=ACCEPTED_AT_ONCE,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                # Heads beyond the limit are answered as such; what never comes to its end is not kept.
                h11_max_incomplete_event_size=2 * limits.header_limit,
                timeout_graceful_shutdown=max(1, limits.drain_timeout // 1000),
            )
        )
        serving = asyncio.create_task(server.serve(sockets=[self._socket]), name="tether-gateway-server")
        waiting = asyncio.create_task(news.wait())
        started = asyncio.create_task(server.has_started.wait())
        await asyncio.wait({serving, waiting, started}, return_when=asyncio.FIRST_COMPLETED)
        if started.done():
            self._on_ready()
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        for task in (waiting, started):
            task.cancel()
        leaving = asyncio.create_task(self._leave(server, edge), name="tether-gateway-leaving")
        try:
            await serving
        finally:
            leaving.cancel()

    async def _leave(self, server: _Server, edge: GatewayServices) -> None:
        assert self._news is not None
        last = max(self._settings.gateway.drain_timeout / 1000 - LAST_SECONDS, 0.0)
        edge.streams.drain()
        server.should_exit = True
        await self._rest(last if self._is_replaced else min(IDLE_SECONDS, last))
        server.close_idle()
        await self._rest(0.0 if self._is_replaced else max(last - IDLE_SECONDS, 0.0))
        edge.streams.end()
        server.close_idle()
        if self._is_hurried.is_set():
            await asyncio.sleep(HURRIED_SECONDS)
            server.is_out_of_time.set()

    async def _rest(self, seconds: float) -> None:
        """Wait for so long, or until nobody waits any longer."""
        assert self._news is not None
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while not self._is_hurried.is_set() and (left := until - loop.time()) > 0:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), left)


class _Server(uvicorn.Server):
    """Uvicorn's server, which leaves signals to whoever runs it."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.has_started = asyncio.Event()
        self.is_out_of_time = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # Asyncio takes one number for both: how many wait in the kernel's queue, and how many it accepts.
        for one in sockets or ():
            one.listen(BACKLOG)
        self.has_started.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # All who are answered from now on shall make a new connection for what they ask next.
        self.server_state.default_headers = [*self.server_state.default_headers, CLOSE_HEADER]
        await super().shutdown(sockets)

    def close_idle(self) -> None:
        """Close the connections on which nothing is being asked or answered."""
        for connection in list(self.server_state.connections):
            assert isinstance(connection, GatewayProtocol)
            connection.close_if_idle()

    async def _wait_tasks_to_complete(self) -> None:
        completing = asyncio.create_task(super()._wait_tasks_to_complete())
        waiting = asyncio.create_task(self.is_out_of_time.wait())
        try:
            await asyncio.wait({completing, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if not completing.done():
                # As where its own time is over.
                raise TimeoutError
        finally:
            completing.cancel()
            waiting.cancel()
