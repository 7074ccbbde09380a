"""Who is next, where only so many can be served at once: tenants in turn."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator

from tether.ids import TenantId


class TenantTurns:
    """So many turns at once. Who waits for one gets it in the order of tenants, not of requests: however many
    of one tenant wait, another's first comes after one of each. It belongs to one event loop."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: dict[TenantId, deque[asyncio.Future[None]]] = {}

    @contextlib.asynccontextmanager
    async def turn(self, tenant_id: TenantId) -> AsyncIterator[None]:
        """Wait for a turn, and have it for as long as the block runs."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(tenant_id)
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, tenant_id: TenantId) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant_id, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                # It came together with the end of the wait for it.
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            tenant_id = next(iter(self._waiting))
            queue = self._waiting.pop(tenant_id)
            turn = queue.popleft()
            if queue:
                # Behind all others: a dict keeps the order in which keys came.
                self._waiting[tenant_id] = queue
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
