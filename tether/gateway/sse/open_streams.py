"""The streams that readers have open at one gateway: how many, who is woken, who is seen to."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection

from tether.errors import StoreUnavailable, TooManyRequests
from tether.gateway.keys.key_ring import Caller
from tether.gateway.sse.encoding import EventEncoder, JobEventEncoder
from tether.gateway.sse.open_stream import OpenStream, stopping
from tether.ids import JobId, TenantId
from tether.telemetry import metrics
from tether.telemetry.logs import get_logger

TICK_SECONDS = 1.0
KEY_CHECK_SECONDS = 2.0
"""Between two looks whether the keys of open streams were revoked."""

STUCK_SECONDS = 30.0
"""How long a reader may take nothing at all, before its connection is closed."""


class OpenStreams:
    """All open streams. They live on one event loop, where :meth:`watch` runs as long as the gateway does."""

    def __init__(
        self,
        *,
        max_per_tenant: int,
        buffer_bytes: int,
        keepalive_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_per_tenant = max_per_tenant
        self._buffer_bytes = buffer_bytes
        self._keepalive_seconds = keepalive_seconds
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._streams: dict[OpenStream, None] = {}
        self._of_tenant: Counter[TenantId] = Counter()
        self._is_draining = self._is_ending = False
        self._lock = threading.Lock()
        self._woken: list[OpenStream] = []
        self._is_scheduled = False
        self._log = get_logger("tether.gateway")

    def __len__(self) -> int:
        return len(self._streams)

    def open(
        self, job_id: JobId, caller: Caller, frames: EventEncoder | None = None, *, can_resume: bool = True
    ) -> OpenStream:
        """A new stream, for as long as :meth:`close` is not called with it.

        Args:
          frames: How its events are written; as those of a job where None.
          can_resume: Whether its reader can come back for the rest of it.

        Raises:
          TooManyRequests: The tenant has as many as it may have.
          GatewayStopping: The gateway is stopping, and does not wait any longer.
        """
        if self._is_ending:
            raise stopping()
        if self._of_tenant[caller.tenant_id] >= self._max_per_tenant:
            error = TooManyRequests(
                f"tenant {caller.tenant_id!r} has reached its limit of {self._max_per_tenant} "
                "open streams at "
                "this gateway: close some (the setting is gateway.streams_per_tenant)"
            )
            error.retry_after = 5
            raise error
        stream = OpenStream(
            job_id,
            caller,
            frames or JobEventEncoder(),
            buffer_bytes=self._buffer_bytes,
            waker=self,
            clock=self._clock,
        )
        self._streams[stream] = None
        stream.can_resume = can_resume
        self._of_tenant[caller.tenant_id] += 1
        metrics.OPEN_STREAMS.inc()
        if self._is_draining and can_resume:
            # It is no error: whoever comes back now makes a new connection, to a gateway that stays.
            stream.interrupt(stopping())
        return stream

    def close(self, stream: OpenStream) -> None:
        """Forget a stream. A second call does nothing."""
        if stream not in self._streams:
            return
        del self._streams[stream]
        stream.abandon()
        self._of_tenant[stream.caller.tenant_id] -= 1
        if not self._of_tenant[stream.caller.tenant_id]:
            del self._of_tenant[stream.caller.tenant_id]
        metrics.OPEN_STREAMS.dec()

    def drain(self) -> None:
        """End streams with a word about coming back, also those that are still opened. Those whose readers
        cannot come back go on."""
        self._is_draining = True
        for stream in list(self._streams):
            if stream.can_resume:
                stream.interrupt(stopping())

    def end(self) -> None:
        """End all streams, and open no more."""
        self._is_draining = self._is_ending = True
        for stream in list(self._streams):
            stream.interrupt(stopping())

    def wake(self, stream: OpenStream) -> None:
        """Have a stream looked at on the loop. However many are woken, the loop is woken once."""
        with self._lock:
            self._woken.append(stream)
            if self._is_scheduled:
                return
            self._is_scheduled = True
        # A loop that is closed has nobody left to wake.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wake_all)

    def _wake_all(self) -> None:
        with self._lock:
            woken, self._woken = self._woken, []
            self._is_scheduled = False
        for stream in woken:
            stream.ready.set()

    async def watch(self, revoked: Callable[[Collection[str]], Awaitable[Collection[str]]]) -> None:
        """See to quiet, stuck and no longer permitted readers, until it is cancelled.

        Args:
          revoked: Which of these keys were revoked.
        """
        checked_at = self._clock()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = self._clock()
            self.look(now)
            if now - checked_at >= KEY_CHECK_SECONDS and self._streams:
                checked_at = now
                await self._check_keys(revoked)

    def look(self, now: float) -> None:
        """Give quiet readers a sign of life, and give up those that take nothing.

        Args:
          now: Seconds of the clock.
        """
        for stream in list(self._streams):
            if stream.sending_since is not None and now - stream.sending_since >= STUCK_SECONDS:
                self._log.warning(
                    "A client does not read its stream. Closing the connection.", job_id=stream.job_id
                )
                metrics.STREAMS_CUT_OFF.labels(reason="stuck").inc()
                stream.give_up()
            elif now - stream.sent_at >= self._keepalive_seconds:
                stream.keep_alive()

    async def _check_keys(self, revoked: Callable[[Collection[str]], Awaitable[Collection[str]]]) -> None:
        try:
            gone = await revoked({stream.caller.key_id for stream in self._streams})
        except StoreUnavailable:
            return
        except Exception:
            self._log.exception("API keys of open streams cannot be checked. Continuing.")
            return
        for stream in list(self._streams):
            if stream.caller.key_id in gone:
                metrics.STREAMS_CUT_OFF.labels(reason="revoked").inc()
                stream.interrupt(stream.caller.revoked_error())
