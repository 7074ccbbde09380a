"""The streams that readers have open at one gateway: bounded buffers, one waking of the loop for many."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import replace
from typing import Protocol

from tether.client.backend import StreamEvent, Subscription
from tether.client.documents import INTERRUPTED, error_to_json, event_id, event_to_json
from tether.errors import ClientClosed, StoreUnavailable, StreamInterrupted, TetherError, TooManyRequests
from tether.gateway.key_ring import Caller
from tether.telemetry import metrics
from tether.telemetry.logs import get_logger

RECONNECT_MS = 1_000
"""After so long a reader comes back whose connection broke."""

TICK_SECONDS = 1.0
KEY_CHECK_SECONDS = 2.0
"""Between two looks whether the keys of open streams were revoked."""

STUCK_SECONDS = 30.0
"""How long a reader may take nothing at all, before its connection is closed."""

SLOW_SECONDS = 2.0
"""For so long more may wait for a reader than the buffer shall hold, before it is cut off."""

MOST_BYTES_A_SEND = 65_536
MOST_TOKENS_A_FRAME = 512

_FIRST = f"retry: {RECONNECT_MS}\n\n".encode()
_KEEPALIVE = b": still here\n\n"


def frames_of(event: StreamEvent) -> Iterator[bytes]:
    """An event as the stream of server-sent events has it (WHATWG HTML, section 9.2).

    A long delta becomes several, so that a reader can go on from within it.
    """
    if len(event.pieces) <= MOST_TOKENS_A_FRAME:
        yield _frame_of(event)
        return
    begin = event.offset - len(event.pieces)
    for start in range(0, len(event.pieces), MOST_TOKENS_A_FRAME):
        pieces = event.pieces[start : start + MOST_TOKENS_A_FRAME]
        yield _frame_of(replace(event, offset=begin + start + len(pieces), pieces=pieces))


def _frame_of(event: StreamEvent) -> bytes:
    data = _compact(event_to_json(event))
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (
        event_id(event.run, event.offset).encode(),
        event.kind.encode(),
        data,
    )


def frame_of_error(error: TetherError) -> bytes:
    """The event with which a stream ends before its end. It has no id: where the reader stands stays."""
    return b"event: %b\ndata: %b\n\n" % (INTERRUPTED.encode(), _compact(error_to_json(error)["error"]))


def _compact(value: object) -> bytes:
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair, which some engines make of a token: JSON can say it, UTF-8 cannot.
        return json.dumps(value, separators=(",", ":")).encode()


class Wakes(Protocol):
    """Who sees to it that a stream is looked at on the loop."""

    def wake(self, stream: OpenStream) -> None: ...


class OpenStream:
    """One reader's stream. :meth:`deliver` may be called on any thread; all else belongs to the loop."""

    def __init__(
        self, job_id: str, caller: Caller, *, buffer_bytes: int, waker: Wakes, clock: Callable[[], float]
    ) -> None:
        self.job_id = job_id
        self.caller = caller
        self.ready = asyncio.Event()
        self.sent_at = clock()
        self.sending_since: float | None = None
        self.is_stuck = False
        self._buffer_bytes = buffer_bytes
        self._waker = waker
        self._clock = clock
        self._lock = threading.Lock()
        self._frames: deque[bytes | Iterator[bytes]] = deque([_FIRST])
        self._size = len(_FIRST)
        self._too_much_since: float | None = None
        self._has_ended = False
        self._subscription: Subscription | None = None
        self._task: asyncio.Task[object] | None = None
        self.ready.set()

    def subscribe(self, subscription: Subscription) -> None:
        """Remember whom to tell that nothing more is wanted."""
        with self._lock:
            has_ended = self._has_ended
            self._subscription = subscription
        if has_ended:
            subscription.close()

    def deliver(self, found: StreamEvent | TetherError) -> None:
        """Take what comes of the job's stream."""
        if isinstance(found, ClientClosed):
            found = _stopping()
        if isinstance(found, TetherError):
            self.interrupt(found)
            return
        with self._lock:
            if self._has_ended:
                return
            is_slow = self._is_slow()
            if not is_slow:
                self._add(found)
                self._has_ended = found.is_last
        if is_slow:
            metrics.STREAMS_CUT_OFF.labels(reason="slow").inc()
            self.interrupt(
                StreamInterrupted(
                    f"this reader is slower than the job: {self._buffer_bytes} bytes wait for it; follow the "
                    "stream again from the id of the last event that arrived"
                ),
                keep=False,
            )
        else:
            self._waker.wake(self)

    def _add(self, event: StreamEvent) -> None:
        frames = frames_of(event)
        if len(event.pieces) > MOST_TOKENS_A_FRAME:
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
            self._push(frame_of_error(error))
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
            self._push(_KEEPALIVE)
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
                    if len(chunk) >= MOST_BYTES_A_SEND:
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
            while self._frames and size < MOST_BYTES_A_SEND:
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


class OpenStreams:
    """All open streams. They live on one event loop, where :meth:`watch` runs as long as the gateway does."""

    def __init__(
        self,
        *,
        most_per_tenant: int,
        buffer_bytes: int,
        keepalive_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most_per_tenant = most_per_tenant
        self._buffer_bytes = buffer_bytes
        self._keepalive_seconds = keepalive_seconds
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._streams: dict[OpenStream, None] = {}
        self._of_tenant: Counter[str] = Counter()
        self._is_draining = False
        self._lock = threading.Lock()
        self._woken: list[OpenStream] = []
        self._is_scheduled = False
        self._log = get_logger("tether.gateway")

    def __len__(self) -> int:
        return len(self._streams)

    def open(self, job_id: str, caller: Caller) -> OpenStream:
        """A new stream, for as long as :meth:`close` is not called with it.

        Raises:
          TooManyRequests: The tenant has as many as it may have.
          StreamInterrupted: The gateway is stopping.
        """
        if self._is_draining:
            raise _stopping()
        if self._of_tenant[caller.tenant_id] >= self._most_per_tenant:
            error = TooManyRequests(
                f"tenant {caller.tenant_id!r} has {self._most_per_tenant} streams open at this gateway and "
                "may not have more: close some (gateway.streams_per_tenant is the limit)"
            )
            error.retry_after = 5
            raise error
        stream = OpenStream(job_id, caller, buffer_bytes=self._buffer_bytes, waker=self, clock=self._clock)
        self._streams[stream] = None
        self._of_tenant[caller.tenant_id] += 1
        metrics.OPEN_STREAMS.inc()
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
        """End all streams with a word about coming back, and open no more."""
        self._is_draining = True
        for stream in list(self._streams):
            stream.interrupt(_stopping())

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
                self._log.warning("A reader takes nothing. Closing it.", job_id=stream.job_id)
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
            self._log.exception("Keys of open streams cannot be checked. Going on.")
            return
        for stream in list(self._streams):
            if stream.caller.key_id in gone:
                metrics.STREAMS_CUT_OFF.labels(reason="revoked").inc()
                stream.interrupt(stream.caller.revoked_error())


def _stopping() -> StreamInterrupted:
    error = StreamInterrupted("the gateway is stopping: follow the stream again, here or at another one")
    error.retry_after = RECONNECT_MS / 1000
    return error
