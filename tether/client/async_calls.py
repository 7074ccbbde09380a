"""A backend's blocking calls, on threads of their own: others on the event loop never wait for them."""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

from tether.client.call_threads import CallThreads
from tether.client.forks import check_process
from tether.client.program_end import close_calls_at_end
from tether.errors import ClientClosed

MAX_THREADS = 32
"""Calls that are under way at once."""

_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")


class AsyncCalls:
    """Owns the threads ``tether-async_<n>``, from the first call to :meth:`close`."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._threads = CallThreads("async", MAX_THREADS)
        close_calls_at_end(self)

    def begin(
        self, function: Callable[_Arguments, _Answer], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> Future[_Answer]:
        """Begin a call, in the caller's context.

        Raises:
          ClientClosed: The client was closed, or belongs to the process that this one was forked from.
        """
        check_process(self._process)
        context = contextvars.copy_context()
        future = self._threads.submit(lambda: context.run(function, *args, **kwargs))
        if future is None:
            raise ClientClosed("the client was closed: create another one")
        return future

    async def call(
        self, function: Callable[_Arguments, _Answer], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Answer:
        """What the function answers.

        Raises:
          ClientClosed: The client was closed.
        """
        return await asyncio.wrap_future(self.begin(function, *args, **kwargs))

    def close(self, timeout: float | None = None) -> None:
        """End the threads, once their calls have ended. Blocks. May be repeated.

        Args:
          timeout: Longest wait for them, in seconds.
        """
        if os.getpid() == self._process:
            self._threads.close(timeout)
