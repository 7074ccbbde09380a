"""Every error that Tether raises on purpose: one hierarchy, with what each boundary needs to answer it.

A message says what is wrong, where, and what to do. It never holds a secret: a URL is masked
(:func:`mask_url`) before it is put into one.
"""

from __future__ import annotations

from typing import ClassVar

from dramatiq.middleware import MiddlewareError

__all__ = [
    "BrokerUnavailable",
    "ConfigError",
    "InvalidMessage",
    "InvalidName",
    "ServerMissing",
    "ServerStartFailed",
    "TetherError",
    "WorkerLost",
    "mask_url",
]


class TetherError(Exception):
    """Base of every error of ours.

    Attributes:
      code: Stable name for programs; it never changes once released.
      http_status: The status with which the gateway answers this error.
      exit_status: The status with which the command line ends on this error.
      retryable: Whether the same call can succeed later without being changed.
    """

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    exit_status: ClassVar[int] = 1
    retryable: ClassVar[bool] = False


class ConfigError(TetherError):
    """A setting is unknown, of the wrong type, or out of range."""

    code = "config_invalid"
    exit_status = 3


class InvalidName(TetherError, ValueError):
    """A queue name or namespace is not one that Redis keys can be made of safely."""

    code = "name_invalid"
    http_status = 422
    exit_status = 2


class InvalidMessage(TetherError, ValueError):
    """A message cannot be enqueued as it is: not encodable, a reserved option, a delay out of range."""

    code = "message_invalid"
    http_status = 422
    exit_status = 2


class BrokerUnavailable(TetherError):
    """Redis could not be reached, or takes no writes: whether a message was enqueued is not known."""

    code = "broker_unavailable"
    http_status = 503
    exit_status = 4
    retryable = True


class ServerMissing(TetherError):
    """A server program that Tether was asked to run is not on this machine."""

    code = "server_missing"
    exit_status = 5


class ServerStartFailed(TetherError):
    """A server program that Tether was asked to run ended before it was ready."""

    code = "server_start_failed"
    exit_status = 5
    retryable = True


class WorkerLost(TetherError, MiddlewareError):
    """The worker process that ran a message died, and the message has no attempts left.

    A ``MiddlewareError``, so that Dramatiq treats it as the failure of the attempt: ``retry_when``,
    ``on_retry_exhausted`` and the dead-letter queue see it like an exception of the actor.
    """

    code = "worker_lost"


def mask_url(url: str) -> str:
    """The URL with its password and query replaced by ``***``, fit for a log or a message.

    It need not be a valid one: whatever stands before the last ``@`` and is not plainly a user's name is
    masked.
    """
    scheme, separator, rest = url.partition("://")
    credentials, at, place = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    if any(mark in user for mark in "/?#"):
        user = "***"
    place, query, _ = place.partition("?")
    return f"{scheme}{separator}{user}{':***' if colon else ''}{at}{place}{'?***' if query else ''}"
