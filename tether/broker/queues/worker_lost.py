"""How the broker raises the error of messages whose worker died."""

from __future__ import annotations

from dramatiq.middleware import MiddlewareError

from tether.errors import WorkerLost


class WorkerLostInAttempt(WorkerLost, MiddlewareError):
    """A ``MiddlewareError``, so that Dramatiq treats it as the failure of the attempt: ``retry_when``,
    ``on_retry_exhausted`` and the dead-letter queue see it like an exception of the actor.
    """
