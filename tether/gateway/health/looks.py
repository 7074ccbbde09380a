"""Looks at what a gateway stands on, shared by all who ask meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

from tether.client.async_calls import AsyncCalls

_Answer = TypeVar("_Answer")


class SharedLooks:
    """Runs probes on threads of its own: whether all is well is known also while every other thread waits.

    Anybody may ask, without a key, as often as they like: they share a look that is under way. What hangs
    holds one thread, and one connection, for each ``patience`` seconds that it hangs. It belongs to one event
    loop, and owns its threads until :meth:`cancel` and :meth:`close`.
    """

    def __init__(self, patience: float) -> None:
        """
        Args:
          patience: Seconds after which a look is waited for no longer, and another one begins.
        """
        self._patience = patience
        self._calls = AsyncCalls()
        self._looks: dict[Callable[[], Any], tuple[float, asyncio.Future[Any]]] = {}

    async def answer(self, probe: Callable[[], _Answer], late: _Answer) -> _Answer:
        """What the probe answers.

        Args:
          late: The answer where it takes too long.
        """
        now = asyncio.get_running_loop().time()
        began, look = self._looks.get(probe, (now, None))
        if look is None or look.done() or now - began >= self._patience:
            look = asyncio.wrap_future(self._calls.begin(probe))
            self._looks[probe] = now, look
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                # A look that others wait for too does not end with who asks.
                answer: _Answer = await asyncio.shield(look)
                return answer
        return late

    def cancel(self) -> None:
        """Wait for none of them any longer."""
        for _, look in self._looks.values():
            look.cancel()

    def close(self) -> None:
        """End the threads, once their probes have ended. Blocks."""
        self._calls.close()
