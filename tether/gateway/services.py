"""What the gateway's routes stand on: callers, the way to the core, open streams."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from typing import ParamSpec, TypeVar

import redis
from sqlalchemy import Connection, text
from starlette.requests import Request

from tether.broker.redis.connections import address_of, without_retries
from tether.client.async_calls import AsyncCalls
from tether.config.settings import Settings
from tether.core.control_plane import ControlPlane
from tether.core.direct.backend import DirectBackend
from tether.core.direct.streams import StoreArchive
from tether.errors import StoreUnavailable, TetherError, TooManyRequests
from tether.gateway.body_budget import BodyBudget
from tether.gateway.fleet_watch import FleetWatch
from tether.gateway.health.looks import SharedLooks
from tether.gateway.health.seen import GatewayHealth, seen_health
from tether.gateway.keys.api_keys import Scope
from tether.gateway.keys.key_ring import Caller, KeyRing
from tether.gateway.receiving import BodyLimit, RequestBodies
from tether.gateway.sse.open_streams import OpenStreams
from tether.gateway.write_probe import WriteProbe
from tether.jobs import DEFAULT_TENANT
from tether.processes.stopping import CLOSING_SECONDS, WIND_UP_SECONDS, StopDeadline
from tether.store.loop_leases import is_any_held
from tether.telemetry.logs import get_logger
from tether.threads import OwnedThread

MAX_CALLS = 1_000
"""Calls that may wait for the core at once."""

FIRST_TRY_SECONDS = 5.0
"""How long callers wait at the door for the core to be opened, before they are told that it is not."""

REST_SECONDS = 1.0
"""Pause before the database is tried again."""

PROBE_SECONDS = 2.0

MAX_FLEET_READS = 2
"""Operators for whom the whole fleet is read at once: each holds a thread, for long where Redis hangs."""

_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")


class GatewayServices:
    """Owns the control plane, and the thread ``tether-gateway-opening`` until that is open.

    It belongs to one event loop. The gateway serves from the start; requests that need the database are
    rejected until that is available.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        on_failure: Callable[[TetherError], None],
        beside: Callable[[ControlPlane], AbstractContextManager[object]] = contextlib.nullcontext,
        in_swarm: bool = False,
        deadline: StopDeadline | None = None,
    ) -> None:
        """
        Args:
          on_failure: Called on another thread where the core can never be opened as it is set up.
          beside: What runs on the same control plane: entered on another thread when that is open, left
            before it is closed.
          in_swarm: See :class:`~tether.core.control_plane.ControlPlane`.
          deadline: That of the process's stop, where one has begun.
        """
        limits = settings.gateway
        self.settings = settings
        self.calls = AsyncCalls()
        self._looks = SharedLooks(PROBE_SECONDS)
        self.job_limit = BodyLimit(limits.body_limit, "gateway.body_limit")
        self.batch_limit = BodyLimit(limits.batch_body_limit, "gateway.batch_body_limit")
        self.bodies = RequestBodies(self.calls, BodyBudget(limits.bodies_in_flight))
        self.streams = OpenStreams(
            max_per_tenant=limits.streams_per_tenant,
            buffer_bytes=limits.stream_buffer,
            keepalive_seconds=limits.keepalive / 1000,
        )
        self._on_failure = on_failure
        self._beside = beside
        self._in_swarm = in_swarm
        self._running_beside = contextlib.ExitStack()
        self._waiting = 0
        self._open: GatewayCore | None = None
        self._why_not = "it is being opened"
        self._has_tried = threading.Event()
        self._deadline = deadline or StopDeadline()
        self._is_stopping = threading.Event()
        self._opening = OwnedThread("gateway-opening", self._open_core, ask_to_stop=self._is_stopping.set)
        self._watching: asyncio.Task[None] | None = None
        self._log = get_logger("tether.gateway")

    async def start(self) -> None:
        """Open the core; where that takes long, or fails, go on with it beside."""
        self._opening.start()
        await asyncio.to_thread(self._has_tried.wait, FIRST_TRY_SECONDS)
        self._watching = asyncio.create_task(self.streams.watch(self._revoked), name="tether-gateway-streams")

    async def stop(self) -> None:
        """Close everything."""
        # Requests have ended, or their time has.
        self._deadline.shorten(WIND_UP_SECONDS)
        # Asked here, since the wait for its end begins on a thread that may not be free yet.
        self._is_stopping.set()
        if self._watching is not None:
            self._watching.cancel()
        self._looks.cancel()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._opening.stop(self._deadline.remaining(but=CLOSING_SECONDS))
        opened, self._open = self._open, None
        self._running_beside.close()
        if opened is not None:
            opened.fleet_watch.close()
            opened.backend.close()
        self.calls.close()
        self._looks.close()

    def _open_core(self) -> None:
        while not self._is_stopping.is_set():
            try:
                self._try_to_open()
                return
            except StoreUnavailable as error:
                if str(error) != self._why_not:
                    self._log.warning("The database is not available yet. Waiting for it.", why=str(error))
                self._why_not = str(error)
            except TetherError as error:
                self._on_failure(error)
                return
            except Exception as error:
                self._log.exception("The gateway cannot be opened.")
                self._on_failure(TetherError(f"the gateway cannot be opened ({type(error).__name__})"))
                return
            finally:
                self._has_tried.set()
            self._is_stopping.wait(REST_SECONDS)

    def _try_to_open(self) -> None:
        plane = ControlPlane(self.settings, in_swarm=self._in_swarm).open()
        try:
            self._running_beside.enter_context(self._beside(plane))
        except BaseException:
            plane.close()
            raise
        self._open = opened = GatewayCore(plane)
        self._log.info(
            "The core is open.",
            database=plane.store.place,
            models=[model.name for model in self.settings.models],
        )
        if not opened.redis_answers():
            self._log.warning(
                "Redis cannot be reached. Jobs are accepted, and wait until it is back.",
                address=address_of(plane.client),
            )

    def core(self) -> GatewayCore:
        """The open core.

        Raises:
          StoreUnavailable: It is not open yet.
        """
        if self._open is None:
            error = StoreUnavailable(
                f"the gateway is starting: its database is not available yet ({self._why_not})"
            )
            error.outward = "the gateway is starting: its database is not available yet"
            error.retry_after = REST_SECONDS
            raise error
        return self._open

    def backend(self, caller: Caller) -> DirectBackend:
        """What carries the calls of this caller."""
        return self.core().backend.for_tenant(caller.tenant_id)

    async def caller(self, request: Request, scope: Scope) -> Caller:
        """Who asks.

        Raises:
          Unauthenticated: Nobody who is known.
          Forbidden: Somebody whose key lacks this scope.
        """
        ring = self.core().ring
        header = request.headers.get("authorization")
        caller = ring.cached(header)
        if caller is None:
            caller = await self.call(ring.caller, header)
        caller.require(scope)
        return caller

    async def call(
        self, function: Callable[_Arguments, _Answer], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Answer:
        """What the function answers, run on a thread: it may block.

        Raises:
          TooManyRequests: As many calls wait as may.
        """
        if self._waiting >= MAX_CALLS:
            error = TooManyRequests(
                "the gateway has reached its limit of concurrent requests: try again later"
            )
            error.retry_after = 1
            raise error
        self._waiting += 1
        try:
            return await self.calls.call(function, *args, **kwargs)
        finally:
            self._waiting -= 1

    async def _revoked(self, key_ids: Collection[str]) -> Collection[str]:
        return await self.call(self.core().ring.revoked, key_ids)

    async def health(self) -> GatewayHealth:
        """How what the gateway stands on answers now."""
        if self._open is None:
            return seen_health(database=False, in_redis=False, orchestrator=None)
        opened = self._open
        database, in_redis, orchestrator = await asyncio.gather(
            self._looks.answer(opened.database_answers, False),
            self._looks.answer(opened.redis_answers, False),
            self._looks.answer(opened.orchestrator_runs, None),
        )
        return seen_health(database=database, in_redis=in_redis, orchestrator=orchestrator)


class GatewayCore:
    """What is there once the control plane is open.

    Attributes:
      fleet_reads: Held by whoever reads the whole fleet from Redis.
      fleet_watch: Reads it for all who watch it.
    """

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.backend = DirectBackend(plane, DEFAULT_TENANT)
        self.ring = KeyRing(plane.store)
        self.archive = StoreArchive(plane.store)
        self.fleet_reads = threading.BoundedSemaphore(MAX_FLEET_READS)
        self.fleet_watch = FleetWatch(plane.settings, plane.clock.now_ms)
        self._can_write = WriteProbe(plane.store.can_write, time.monotonic)
        self._probe = without_retries(plane.client, socket_timeout=1.0, socket_connect_timeout=1.0)

    def database_answers(self) -> bool:
        """Whether it can be read, and written as well: what is submitted must be kept."""
        store = self.plane.store
        try:
            store.read(_one)
            # Where the last write failed, nobody may come to try another one.
            return store.has_room() and (not store.cannot_write or self._can_write())
        except TetherError:
            return False

    def orchestrator_runs(self) -> bool | None:
        """Whether an orchestrator holds leases; None where the database does not say."""
        try:
            return self.plane.store.read(is_any_held, self.plane.clock.now_ms())
        except TetherError:
            return None

    def redis_answers(self) -> bool:
        try:
            answers = bool(self._probe.ping())
        except redis.RedisError:
            return False
        self.plane.redis_safety.look_once()
        return answers


def _one(connection: Connection) -> None:
    connection.execute(text("SELECT 1"))
