"""The error of messages whose worker died."""

from __future__ import annotations

from dramatiq.middleware import MiddlewareError

from tether.errors import TetherError


class WorkerLost(TetherError, MiddlewareError):
    """The worker process that ran a message died, and the message has no attempts left.

    A ``MiddlewareError``, so that Dramatiq treats it as the failure of the attempt: ``retry_when``,
    ``on_retry_exhausted`` and the dead-letter queue see it like an exception of the actor.
    """

    code = "worker_lost"
