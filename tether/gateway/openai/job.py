"""The job behind a chat completion, after it was submitted: what became of it, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from tether.core.direct.backend import DirectBackend
from tether.errors import TetherError
from tether.gateway.openai.documents import end_error
from tether.gateway.services import GatewayServices
from tether.ids import NO_JOB
from tether.streams.events import StreamEvent
from tether.telemetry.logs import get_logger

_Answer = TypeVar("_Answer")


class ChatJob:
    """One job whose answer is waited for.

    Attributes:
      job_id: ``NO_JOB`` until it is submitted.
    """

    def __init__(self, edge: GatewayServices, backend: DirectBackend, *, may_come_back: bool) -> None:
        """
        Args:
          may_come_back: Whether its client can ask for it again.
        """
        self.job_id = NO_JOB
        self._calls = edge.calls
        self._backend = backend
        self._may_come_back = may_come_back

    async def why(self, failed: StreamEvent) -> TetherError:
        """Why it has no answer."""
        try:
            status = await self._calls.call(self._backend.job_port.status, self.job_id)
        except TetherError:
            return end_error(self.job_id, failed, None)
        return end_error(self.job_id, failed, status.error)

    async def call(self, function: Callable[[], _Answer]) -> _Answer:
        """Return what the function returns, run on a thread."""
        return await self._calls.call(function)

    async def leave(self) -> None:
        """Cancel it: its client has disconnected, and nobody else knows of it.

        One with an idempotency key continues: its client can retry with the same key.
        """
        if not self.job_id or self._may_come_back:
            return
        # A request that is given up shall not keep its job running.
        await asyncio.shield(self._cancel())

    async def _cancel(self) -> None:
        try:
            await self._calls.call(self._backend.job_port.cancel, self.job_id)
        except TetherError as error:
            get_logger("tether.gateway").warning(
                "The job of a disconnected client cannot be cancelled. It continues.",
                job_id=self.job_id,
                reason=str(error),
            )
