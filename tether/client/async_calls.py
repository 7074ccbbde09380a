"""A backend's blocking calls, on threads of their own: others on the event loop never wait for them."""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from tether.client.forks import check_process
from tether.errors import ClientClosed

MAX_THREADS = 32
"""Calls that are under way at once."""

_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")


class AsyncCalls:
    """Owns the threads ``tether-async_<n>``, from the first call to :meth:`close`."""

    def __init__(self) -> None:
        self._is_closed = False
        self._process = os.getpid()
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="tether-async")

    def begin(
        self, function: Callable[_Arguments, _Answer], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> Future[_Answer]:
        """Begin a call, in the caller's context.

        Raises:
          ClientClosed: The client was closed, or belongs to the process that this one was forked from.
        """
        check_process(self._process)
        context = contextvars.copy_context()
        try:
            return self._threads.submit(lambda: context.run(function, *args, **kwargs))
        except RuntimeError as error:
            if not self._is_closed:
                raise
            raise ClientClosed("the client was closed: create another one") from error

    async def call(
        self, function: Callable[_Arguments, _Answer], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Answer:
        """What the function answers.

        Raises:
          ClientClosed: The client was closed.
        """
        return await asyncio.wrap_future(self.begin(function, *args, **kwargs))

    def close(self) -> None:
        """End the threads, once their calls have ended. Blocks. May be repeated."""
        self._is_closed = True
        self._threads.shutdown()
