"""Turns at reading lists: however many ask for lists, threads and connections are left for all else."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from tether.errors import TooManyRequests
from tether.ids import TenantId

MAX_RUNNING = 2
"""Lists that a process reads at once; the store has more connections than that."""

MAX_WAITING = 256
"""Lists that wait for their turn, half of them of one tenant at most. A tenant's first takes the place of the
last one of whoever has the most there. In a gateway none of them holds a thread."""

PATIENCE_SECONDS = 5.0
"""How long a list waits for its turn."""

RETRY_SECONDS = 1.0

_Answer = TypeVar("_Answer")


class ListReads:
    """Bounds the lists that are read at once. Tenants whose lists wait take turns."""

    def __init__(
        self,
        *,
        max_running: int = MAX_RUNNING,
        max_waiting: int = MAX_WAITING,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._patience_seconds = patience_seconds
        self._lock = threading.Lock()
        self._running = 0
        self._waiting: OrderedDict[TenantId, deque[Future[None]]] = OrderedDict()

    @contextlib.contextmanager
    def turn(self, tenant_id: TenantId) -> Iterator[None]:
        """Wait for a turn, and hold it. Blocks.

        Raises:
          TooManyRequests: Too many wait already, or it did not come in time.
        """
        ticket = self._ask(tenant_id)
        try:
            ticket.result(self._patience_seconds)
        except TimeoutError:
            self._give_up(tenant_id, ticket)
            raise self._too_late() from None
        except BaseException:
            self._give_up(tenant_id, ticket)
            raise
        try:
            yield
        finally:
            self._pass_on()

    async def in_turn(self, tenant_id: TenantId, read: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Wait for a turn on an event loop, where who waits holds no thread, and return what is read in it.

        The turn ends with the reading, which may go on where its caller was cancelled.

        Raises:
          TooManyRequests: Too many wait already, or it did not come in time.
        """
        ticket = self._ask(tenant_id)
        if ticket.done():
            ticket.result()
        else:
            try:
                async with asyncio.timeout(self._patience_seconds):
                    # Shielded, since a ticket that is cancelled could not tell that its turn has come.
                    await asyncio.shield(asyncio.wrap_future(ticket))
            except TimeoutError:
                self._give_up(tenant_id, ticket)
                raise self._too_late() from None
            except BaseException:
                self._give_up(tenant_id, ticket)
                raise
        reading = asyncio.ensure_future(read())
        reading.add_done_callback(lambda _: self._pass_on())
        return await asyncio.shield(reading)

    def waiting(self) -> int:
        """Return the number of lists that wait."""
        with self._lock:
            return sum(map(len, self._waiting.values()))

    def _ask(self, tenant_id: TenantId) -> Future[None]:
        """Return what is done once the turn has come."""
        ticket: Future[None] = Future()
        with self._lock:
            if self._running < self._max_running:
                self._running += 1
                ticket.set_result(None)
                return ticket
            mine = self._waiting.get(tenant_id, ())
            all_waiting = sum(map(len, self._waiting.values()))
            if len(mine) >= (self._max_waiting + 1) // 2:
                raise self._no_place(all_waiting, len(mine))
            if all_waiting >= self._max_waiting and not self._make_place(tenant_id, all_waiting):
                raise self._no_place(all_waiting, len(mine))
            self._waiting.setdefault(tenant_id, deque()).append(ticket)
            return ticket

    def _make_place(self, tenant_id: TenantId, all_waiting: int) -> bool:
        """Refuse the last list of the tenant with the most, for one with none. The lock is held."""
        if tenant_id in self._waiting:
            return False
        theirs: deque[Future[None]] = max(self._waiting.values(), key=len, default=deque())
        if len(theirs) < 2:
            return False
        theirs.pop().set_exception(self._no_place(all_waiting, len(theirs)))
        return True

    def _give_up(self, tenant_id: TenantId, ticket: Future[None]) -> None:
        """Nobody waits for this turn any more. One that has come since goes to the next."""
        with self._lock:
            has_come = ticket.done() and ticket.exception() is None
            if not ticket.done():
                mine = self._waiting[tenant_id]
                mine.remove(ticket)
                if not mine:
                    del self._waiting[tenant_id]
        if has_come:
            self._pass_on()

    @staticmethod
    def _no_place(all_waiting: int, mine: int) -> TooManyRequests:
        return _too_many(f"{all_waiting} lists of jobs wait to be read, {mine} of them yours")

    def _too_late(self) -> TooManyRequests:
        return _too_many(f"the list of jobs was not read within {self._patience_seconds:g} seconds")

    def _pass_on(self) -> None:
        with self._lock:
            if not self._waiting:
                self._running -= 1
                return
            tenant_id, mine = next(iter(self._waiting.items()))
            mine.popleft().set_result(None)
            if mine:
                self._waiting.move_to_end(tenant_id)
            else:
                del self._waiting[tenant_id]


def _too_many(problem: str) -> TooManyRequests:
    error = TooManyRequests(f"{problem}: try again later, with fewer lists at once")
    error.retry_after = RETRY_SECONDS
    return error
