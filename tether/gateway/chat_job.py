"""The job behind a chat completion, after it was submitted: what became of it, and its end."""

from __future__ import annotations

import asyncio

from tether.client.backend import StreamEvent
from tether.client.direct import DirectBackend
from tether.errors import TetherError
from tether.gateway.chat_documents import end_error
from tether.gateway.edge import Edge
from tether.telemetry.logs import get_logger


class ChatJob:
    """One job whose answer is waited for.

    Attributes:
      job_id: Empty until it is submitted.
    """

    def __init__(self, edge: Edge, backend: DirectBackend, *, may_come_back: bool) -> None:
        """
        Args:
          may_come_back: Whether its client can ask for it again.
        """
        self.job_id = ""
        self._calls = edge.calls
        self._backend = backend
        self._may_come_back = may_come_back

    async def why(self, failed: StreamEvent) -> TetherError:
        """Why it has no answer."""
        try:
            status = await self._calls.call(self._backend.status, self.job_id)
        except TetherError:
            return end_error(self.job_id, failed, None)
        return end_error(self.job_id, failed, status.error)

    async def leave(self) -> None:
        """Cancel it: its client is gone, and nobody else knows of it.

        One that was sent with an idempotency key goes on: its client can come back for it with the same key.
        """
        if not self.job_id or self._may_come_back:
            return
        # A request that is given up shall not keep its job running.
        await asyncio.shield(self._cancel())

    async def _cancel(self) -> None:
        try:
            await self._calls.call(self._backend.cancel, self.job_id)
        except TetherError as error:
            get_logger("tether.gateway").warning(
                "The job of a client that left cannot be cancelled. It goes on.",
                job_id=self.job_id,
                reason=str(error),
            )
