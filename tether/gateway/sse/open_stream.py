"""One reader's stream: what waits to be sent to it, and when it is too slow for that."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

from tether.errors import ClientClosed, GatewayStopping, ReaderTooSlow, TetherError
from tether.gateway.keys.key_ring import Caller
from tether.gateway.sse.encoding import (
    KEEPALIVE_COMMENT,
    MAX_TOKENS_PER_FRAME,
    RECONNECT_MS,
    EventEncoder,
)
from tether.ids import JobId
from tether.streams.events import StreamEvent, StreamSubscription
from tether.telemetry import metrics

SLOW_SECONDS = 2.0
"""For so long more may wait for a reader than the buffer shall hold, before it is cut off."""

MAX_BYTES_PER_SEND = 65_536


class Wakes(Protocol):
    """Who sees to it that a stream is looked at on the loop."""

    def wake(self, stream: OpenStream) -> None: ...


class OpenStream:
    """One reader's stream. :meth:`deliver` may be called on any thread; all else belongs to the loop."""

    def __init__(
        self,
        job_id: JobId,
        caller: Caller,
        frames: EventEncoder,
        *,
        buffer_bytes: int,
        waker: Wakes,
        clock: Callable[[], float],
    ) -> None:
        self.job_id = job_id
        self.caller = caller
        self.ready = asyncio.Event()
        self.sent_at = clock()
        self.sending_since: float | None = None
        self.is_stuck = False
        self.can_resume = True
        self._buffer_bytes = buffer_bytes
        self._waker = waker
        self._clock = clock
        self._lock = threading.Lock()
        self._form = frames
        self._frames: deque[bytes | Iterator[bytes]] = deque()
        self._size = 0
        self._too_much_since: float | None = None
        self._has_ended = False
        self._subscription: StreamSubscription | None = None
        self._task: asyncio.Task[object] | None = None
        self.ready.set()

    def subscribe(self, subscription: StreamSubscription) -> None:
        """Remember whom to tell that nothing more is wanted."""
        with self._lock:
            has_ended = self._has_ended
            self._subscription = subscription
        if has_ended:
            subscription.close()

    def deliver(self, event: StreamEvent | TetherError) -> None:
        """Take what comes of the job's stream."""
        if isinstance(event, ClientClosed):
            event = stopping()
        end = event if isinstance(event, TetherError) else self._form.unfit(event)
        if end is not None:
            self.interrupt(end)
            return
        assert isinstance(event, StreamEvent)
        with self._lock:
            if self._has_ended:
                return
            is_slow = self._is_slow()
            if not is_slow:
                self._add(event)
                self._has_ended = event.is_last
        if is_slow:
            metrics.STREAMS_CUT_OFF.labels(reason="slow").inc()
            self.interrupt(
                ReaderTooSlow(
                    f"this client reads too slowly: more than {self._buffer_bytes} bytes wait for it (the "
                    "setting is gateway.stream_buffer); follow the stream again from the id of the last "
                    "event received"
                ),
                keep=False,
            )
        else:
            self._waker.wake(self)

    def _add(self, event: StreamEvent) -> None:
        frames = self._form.of_event(event)
        if len(event.pieces) > MAX_TOKENS_PER_FRAME:
            # The tokens are shared by all who read them now. Their frames, which are not, are made when sent.
            self._frames.append(frames)
            return
        for frame in frames:
            self._push(frame)

    def _push(self, frame: bytes) -> None:
        self._frames.append(frame)
        self._size += len(frame)

    def _is_slow(self) -> bool:
        """Whether too much waits for the reader, and has for long. Where much comes at once, as the beginning
        of a long stream does, a reader that takes it is not slow."""
        if self._size <= self._buffer_bytes:
            self._too_much_since = None
        elif self._too_much_since is None:
            self._too_much_since = self._clock()
        return self._too_much_since is not None and self._clock() - self._too_much_since >= SLOW_SECONDS

    def interrupt(self, error: TetherError, *, keep: bool = True) -> None:
        """End the stream before its end, and say why.

        Args:
          keep: Whether what waits to be sent is sent before that.
        """
        with self._lock:
            if self._has_ended:
                return
            self._has_ended = True
            if not keep:
                self._frames.clear()
                self._size = 0
            self._push(self._form.of_error(error))
            subscription = self._subscription
        if subscription is not None:
            subscription.close()
        self._waker.wake(self)

    def abandon(self) -> None:
        """The reader has gone: send no more."""
        with self._lock:
            self._has_ended = True
            self._frames.clear()
            self._size = 0
            subscription = self._subscription
        if subscription is not None:
            subscription.close()
        self.ready.set()

    def keep_alive(self) -> None:
        """Send a sign of life, where nothing else waits."""
        with self._lock:
            if self._has_ended or self._frames:
                return
            self._push(KEEPALIVE_COMMENT)
        self.ready.set()

    def give_up(self) -> None:
        """End a reader that takes nothing."""
        self.is_stuck = True
        self.abandon()
        if self._task is not None:
            self._task.cancel()

    async def send_all(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Send what comes, until the end. Returns early where it was given up."""
        self._task = asyncio.current_task()
        try:
            while True:
                await self.ready.wait()
                self.ready.clear()
                while chunk := self._take():
                    self.sending_since = self._clock()
                    await send(chunk)
                    self.sending_since = None
                    self.sent_at = self._clock()
                    if len(chunk) >= MAX_BYTES_PER_SEND:
                        # A long stream to a quick reader shall let the others have their turn.
                        await asyncio.sleep(0)
                if self._has_ended and not self._frames:
                    return
        except asyncio.CancelledError:
            if not self.is_stuck or self._task is None:
                raise
            self._task.uncancel()
        finally:
            self._task = None

    def _take(self) -> bytes:
        chunk: list[bytes] = []
        size = 0
        with self._lock:
            while self._frames and size < MAX_BYTES_PER_SEND:
                first = self._frames[0]
                if isinstance(first, bytes):
                    self._frames.popleft()
                    self._size -= len(first)
                    frame: bytes | None = first
                else:
                    frame = next(first, None)
                if frame is None:
                    self._frames.popleft()
                else:
                    chunk.append(frame)
                    size += len(frame)
            if self._size <= self._buffer_bytes:
                self._too_much_since = None
        return b"".join(chunk)


def stopping() -> GatewayStopping:
    """What readers are told when the gateway stops."""
    error = GatewayStopping("the gateway is shutting down: follow the stream again, here or at another one")
    error.retry_after = RECONNECT_MS / 1000
    return error
