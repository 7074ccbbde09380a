"""Dead messages for programs on an event loop: ``AsyncTether.dead_messages``."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from datetime import datetime

from tether.client.async_calls import AsyncCalls
from tether.client.dead_message_port import DeadMessagePort
from tether.client.dead_messages import MESSAGES_AT_ONCE, DeadQueues
from tether.dead_messages import DeadMessage, DeadMessageRetry, DeadQueue


class AsyncDeadQueues:
    """:class:`DeadQueues` for programs on an event loop."""

    def __init__(self, port: DeadMessagePort, calls: AsyncCalls) -> None:
        self._port = port
        self._calls = calls

    async def queues(self) -> list[DeadQueue]:
        """See :meth:`DeadQueues.queues`."""
        return await self._calls.call(self._port.queues)

    async def list(self, queue: str, *, payloads: bool = False) -> AsyncIterator[DeadMessage]:
        """See :meth:`DeadQueues.list`."""
        cursor = None
        while True:
            page = await self._calls.call(self._port.find, queue, cursor, MESSAGES_AT_ONCE, payloads)
            for message in page.messages:
                yield message
            cursor = page.next_cursor
            if cursor is None:
                return

    async def show(self, queue: str, retry_token: str) -> DeadMessage:
        """See :meth:`DeadQueues.show`."""
        return await self._calls.call(self._port.message, queue, retry_token)

    async def retry(self, queue: str, retry_token: str, *, force: bool = False) -> DeadMessageRetry:
        """See :meth:`DeadQueues.retry`."""
        return await self._calls.call(self._port.retry, queue, retry_token, force)

    async def purge(
        self, queue: str, retry_token: str | None = None, *, died_before: datetime | None = None
    ) -> int:
        """See :meth:`DeadQueues.purge`."""
        queues = DeadQueues(self._port)
        return await self._calls.call(
            functools.partial(queues.purge, queue, retry_token, died_before=died_before)
        )
