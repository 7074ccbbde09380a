"""The thread on which all HTTP of a client happens."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, NamedTuple, TypeVar

from aiohttp import ClientSession

from tether.client.forks import check_process
from tether.client.lifetime import closed
from tether.errors import TetherError
from tether.threads import OwnedThread

EXIT_SECONDS = 5.0
"""How long a program's end waits for the connections to be closed."""

_Answer = TypeVar("_Answer")


class CallLimit(NamedTuple):
    """Until when calls are waited for, in seconds of the monotonic clock; what one raises that is late."""

    ends_at: float
    late: Callable[[], TetherError]


class HttpThread:
    """Owns the thread ``tether-http`` with its event loop and one session, from the first call to
    :meth:`close`."""

    def __init__(self, open_session: Callable[[], ClientSession], limit: CallLimit | None = None) -> None:
        """
        Args:
          open_session: Called once, on the loop.
          limit: Until when calls are waited for; None for ever.
        """
        self._open_session = open_session
        self._limit = limit
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._is_stopping = False
        self._stopping = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: OwnedThread | None = None
        self._session: ClientSession | None = None

    def call(self, function: Callable[[ClientSession], Coroutine[Any, Any, _Answer]]) -> _Answer:
        """What the function's coroutine answers, run on the loop. Blocks.

        Raises:
          ClientClosed: It was closed, before or meanwhile, or belongs to the process that this one was forked
            from.
        """
        check_process(self._process)
        if self._thread is not None and self._thread.is_current:
            raise TetherError(
                "a blocking call was made on the thread that delivers stream events, which would deadlock: "
                "call from another thread"
            )
        future = self._begin(function)
        try:
            return future.result()
        except CancelledError:
            raise closed() from None
        except BaseException:
            future.cancel()
            raise

    def _begin(self, function: Callable[[ClientSession], Coroutine[Any, Any, _Answer]]) -> Future[_Answer]:
        # Under the lock: what is handed to the loop before it is told to stop, it still ends in order.
        with self._lock:
            if self._is_stopping:
                raise closed()
            if self._loop is None:
                self._start()
            assert self._loop is not None
            return asyncio.run_coroutine_threadsafe(self._answer(function), self._loop)

    async def _answer(self, function: Callable[[ClientSession], Coroutine[Any, Any, _Answer]]) -> _Answer:
        if self._session is None:
            self._session = self._open_session()
        if self._limit is None:
            return await function(self._session)
        # Loops count in seconds of the monotonic clock.
        ending = asyncio.timeout_at(self._limit.ends_at)
        try:
            async with ending:
                return await function(self._session)
        except TimeoutError:
            if ending.expired():
                raise self._limit.late() from None
            raise

    def _start(self) -> None:
        loop = asyncio.new_event_loop()
        thread = OwnedThread("http", functools.partial(self._run, loop))
        try:
            thread.start()
        except RuntimeError:
            loop.close()
            raise
        self._loop, self._thread = loop, thread
        _open.add(self)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        await self._stopping.wait()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def soon(self, callback: Callable[[], object]) -> None:
        """Have something done on the loop, without waiting for it; nothing where that has ended."""
        if os.getpid() == self._process and self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(callback)

    def stop(self) -> None:
        """Begin to end the thread: calls that are under way raise :class:`ClientClosed`. Does not wait."""
        if os.getpid() != self._process:
            return
        with self._lock:
            self._is_stopping = True
        self.soon(self._stopping.set)

    def close(self, timeout: float | None = None) -> None:
        """End the thread. May be repeated.

        Args:
          timeout: Longest wait, in seconds.
        """
        self.stop()
        if os.getpid() == self._process and self._thread is not None:
            self._thread.join(timeout)


_open: weakref.WeakSet[HttpThread] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    # A program may end without closing its client. Sessions that are left open would complain.
    for thread in list(_open):
        thread.close(EXIT_SECONDS)
