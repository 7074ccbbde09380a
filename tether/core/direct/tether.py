"""Tether for programs that talk to the database and Redis themselves: what only these can do."""

from __future__ import annotations

from typing import Any

from dramatiq import Actor

from tether.broker import TetherBroker
from tether.client.api import Tether
from tether.client.async_api import AsyncTether
from tether.core.direct.backend import DirectBackend


class DirectTether(Tether):
    """What :meth:`Tether.direct` answers."""

    def __init__(self, backend: DirectBackend) -> None:
        super().__init__(backend=backend)
        self._direct = backend

    @property
    def broker(self) -> TetherBroker:
        """A Dramatiq broker, for the program's own actors too. It is closed with the client."""
        return self._direct.broker

    @property
    def infer(self) -> Actor[..., Any]:
        """The Dramatiq actor whose messages are jobs. It takes :meth:`Tether.submit`'s arguments by name.

        The answered message's id is the job's: ``t.job(t.infer.send(model=..., prompt=...).message_id)``.
        ``delay`` of ``send_with_options`` is in milliseconds, as Dramatiq has it.
        """
        return self._direct.infer


class AsyncDirectTether(AsyncTether):
    """What :meth:`AsyncTether.direct` answers. What Dramatiq does blocks: send from a thread."""

    def __init__(self, backend: DirectBackend) -> None:
        super().__init__(backend=backend)
        self._direct = backend

    @property
    def broker(self) -> TetherBroker:
        """See :attr:`DirectTether.broker`."""
        return self._direct.broker

    @property
    def infer(self) -> Actor[..., Any]:
        """See :attr:`DirectTether.infer`."""
        return self._direct.infer
