"""Every error that Tether raises on purpose: one hierarchy, with what each boundary needs to answer it.

A message says what is wrong, where, and what to do. It never holds a secret: a URL is masked
(:func:`mask_url`) before it is put into one.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from tether.broker.worker_lost import WorkerLost as WorkerLost

__all__ = [
    "AddressInUse",
    "AlreadyRunning",
    "BrokerUnavailable",
    "ClientClosed",
    "CommandUnanswered",
    "CommitUnknown",
    "ConfigError",
    "DiskFull",
    "EngineFailed",
    "EpochChanged",
    "Forbidden",
    "GatewayUnavailable",
    "GatewayUnknown",
    "HeadersTooLarge",
    "InvalidAnnouncement",
    "InvalidCommand",
    "InvalidMessage",
    "InvalidName",
    "InvalidRequest",
    "JobCancelled",
    "JobExpired",
    "JobFailed",
    "JobNotFound",
    "JobRefused",
    "KeyConflict",
    "KeyNotFound",
    "MalformedBody",
    "MethodNotAllowed",
    "ModelDamaged",
    "ModelUnusable",
    "NoLiveWorker",
    "NotServed",
    "QuotaExceeded",
    "RequestTimeout",
    "RequestTooLarge",
    "ResultTimeout",
    "RouteUnknown",
    "ServerMissing",
    "ServerStartFailed",
    "StoreError",
    "StoreUnavailable",
    "StreamInterrupted",
    "TenantNotFound",
    "TetherError",
    "TooManyRequests",
    "Unauthenticated",
    "UnexpectedAnswer",
    "UnknownModel",
    "WorkerLost",
    "WorkerNotFound",
    "WorkerRevoked",
    "error_of",
    "mask_url",
]


class TetherError(Exception):
    """Base of every error of ours.

    Attributes:
      code: Stable name for programs; it never changes once released.
      http_status: The status with which the gateway answers this error.
      exit_status: The status with which the command line ends on this error.
      retryable: Whether the same call can succeed later without being changed.
      retry_after: Least wait before that, in seconds; None where nothing is known.
    """

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    exit_status: ClassVar[int] = 1
    retryable: ClassVar[bool] = False
    retry_after: float | None = None


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


class UnknownModel(TetherError):
    """A job asks for a model that is not configured."""

    code = "model_unknown"
    http_status = 404
    exit_status = 2


class InvalidAnnouncement(TetherError, ValueError):
    """A worker's announcement is not one, or is not signed by a worker that is trusted.

    Attributes:
      reason: A short stable name of what is wrong.
    """

    code = "announcement_invalid"
    http_status = 422
    exit_status = 2

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.reason = reason


class InvalidCommand(TetherError, ValueError):
    """A command to a worker is not one, is not signed by an operator, or counts no longer.

    Attributes:
      reason: A short stable name of what is wrong.
    """

    code = "command_invalid"
    http_status = 422
    exit_status = 2

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.reason = reason


class CommandUnanswered(TetherError, TimeoutError):
    """A worker does not show the effect of a command yet: it may still come."""

    code = "command_unanswered"
    http_status = 504
    exit_status = 4
    retryable = True


class BrokerUnavailable(TetherError):
    """Redis could not be reached, or takes no writes: whether a message was enqueued is not known."""

    code = "broker_unavailable"
    http_status = 503
    exit_status = 4
    retryable = True


class NoLiveWorker(TetherError):
    """Nobody serves a model now, and its answer is waited for: nothing was accepted."""

    code = "no_live_worker"
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


class AddressInUse(TetherError):
    """Another program listens at the address that a server of ours was told to listen at."""

    code = "address_in_use"
    exit_status = 5


class AlreadyRunning(TetherError):
    """A Tether runs already on this state folder."""

    code = "already_running"
    exit_status = 5


class DiskFull(TetherError):
    """The disk has too little room for what Tether would write to it."""

    code = "disk_full"
    exit_status = 74


class StoreError(TetherError):
    """The metadata store refuses an operation, or cannot be used as it is: the same call fails again."""

    code = "store_failed"


class StoreUnavailable(StoreError):
    """The database could not be reached, was locked for too long, or has no room: nothing was written."""

    code = "store_unavailable"
    http_status = 503
    exit_status = 4
    retryable = True


class CommitUnknown(StoreUnavailable):
    """The connection to the database was lost while a transaction was committed.

    Whether it was written is not known: send the same request again with the same key.
    """

    code = "commit_unknown"


class InvalidRequest(TetherError, ValueError):
    """What a client asks for is not possible: fields are missing, unknown, of wrong types or out of range.

    Attributes:
      param: The field that is meant, where it is one that OpenAI's clients shall be told.
    """

    code = "request_invalid"
    http_status = 422
    exit_status = 2
    param: str | None = None


class KeyConflict(TetherError):
    """The idempotency key was used before, for another request."""

    code = "key_conflict"
    http_status = 409
    exit_status = 2


class QuotaExceeded(TetherError):
    """The tenant has as many open jobs as it may have. Once some have ended, others are accepted."""

    code = "quota_exceeded"
    http_status = 429
    exit_status = 4
    retryable = True


class JobNotFound(TetherError, LookupError):
    """There is no such job, or it is another tenant's."""

    code = "job_unknown"
    http_status = 404
    exit_status = 2


class ResultTimeout(TetherError, TimeoutError):
    """A job has not ended within the time that the caller had. It goes on."""

    code = "result_timeout"
    http_status = 504
    exit_status = 4
    retryable = True


class JobFailed(TetherError):
    """A job failed for good."""

    code = "job_failed"


class JobCancelled(JobFailed):
    """A job was cancelled."""

    code = "job_cancelled"
    http_status = 409
    exit_status = 8


class JobExpired(JobFailed):
    """A job was not done by its deadline."""

    code = "job_expired"
    http_status = 504
    exit_status = 9


class MalformedBody(InvalidRequest):
    """The body of a request is not JSON in UTF-8, or no object."""

    code = "body_malformed"
    http_status = 400


class RequestTooLarge(InvalidRequest):
    """A request is larger than the gateway takes."""

    code = "request_too_large"
    http_status = 413


class RequestTimeout(TetherError):
    """The body of a request did not come in time."""

    code = "request_timeout"
    http_status = 408
    exit_status = 4
    retryable = True


class RouteUnknown(TetherError, LookupError):
    """The gateway has no such address, or it does not take this method."""

    code = "route_unknown"
    http_status = 404
    exit_status = 2


class MethodNotAllowed(RouteUnknown):
    """An address of the gateway does not take this method."""

    code = "method_not_allowed"
    http_status = 405


class HeadersTooLarge(RequestTooLarge):
    """The head of a request is larger than the gateway takes."""

    code = "headers_too_large"
    http_status = 431


class Unauthenticated(TetherError):
    """A request has no API key, or one that is not known or was revoked."""

    code = "unauthenticated"
    http_status = 401
    exit_status = 6


class Forbidden(TetherError):
    """An API key lacks the scope that a request needs."""

    code = "forbidden"
    http_status = 403
    exit_status = 6


class KeyNotFound(TetherError, LookupError):
    """There is no such API key, or it is another tenant's."""

    code = "key_unknown"
    http_status = 404
    exit_status = 2


class WorkerNotFound(TetherError, LookupError):
    """There is no such worker."""

    code = "worker_unknown"
    http_status = 404
    exit_status = 2


class TenantNotFound(TetherError, LookupError):
    """There is no such tenant."""

    code = "tenant_unknown"
    http_status = 404
    exit_status = 2


class TooManyRequests(TetherError):
    """A tenant has as many streams open as it may have, or the gateway as many requests as it can take."""

    code = "too_many_requests"
    http_status = 429
    exit_status = 4
    retryable = True


class StreamInterrupted(TetherError):
    """The gateway ended a stream before its end: follow it again from the last event's id."""

    code = "stream_interrupted"
    http_status = 503
    exit_status = 4
    retryable = True


class GatewayUnknown(ConfigError):
    """Nobody said which gateway to use, and none was found."""

    code = "gateway_unknown"


class GatewayUnavailable(TetherError):
    """The gateway could not be reached, or answered that it cannot serve now.

    Whether a submission was accepted is not known: submit again with the same keys.
    """

    code = "gateway_unavailable"
    http_status = 503
    exit_status = 4
    retryable = True


class UnexpectedAnswer(TetherError):
    """What answered is no gateway of Tether's, or one of a version that cannot be understood."""

    code = "answer_unexpected"
    http_status = 502
    exit_status = 5


class EpochChanged(TetherError):
    """Redis lost what a worker's attempts stand on: drop them all, say hello again, go on."""

    code = "epoch_changed"


class WorkerRevoked(TetherError):
    """The key of a worker was revoked: it gets no more jobs, and those that it had are others'."""

    code = "worker_revoked"
    http_status = 403
    exit_status = 6


class ClientClosed(TetherError):
    """The client was closed, or belongs to another process: it can be used no longer. Jobs go on."""

    code = "client_closed"


class JobRefused(TetherError):
    """A worker's own rules refuse a job. It is not tried again."""

    code = "job_refused"
    http_status = 403


class EngineFailed(TetherError):
    """An engine broke, or broke its contract. Another attempt may succeed."""

    code = "engine_failed"
    retryable = True


class ModelDamaged(TetherError):
    """A model's files are not those that were released: one is missing, or differs."""

    code = "model_damaged"
    exit_status = 5


class ModelUnusable(TetherError):
    """A model cannot be loaded as it is configured: it is missing, of an unknown kind, or does not fit."""

    code = "model_unusable"
    exit_status = 5


class NotServed(UnknownModel):
    """A model is not among those that this worker serves. Another one may have it."""

    retryable = True


def __getattr__(name: str) -> Any:
    # Its other base is Dramatiq's, which the command line starts without.
    if name == "WorkerLost":
        from tether.broker.worker_lost import WorkerLost

        return WorkerLost
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def error_of(code: str, message: str, retry_after: float | None = None) -> TetherError:
    """The error that has this code; a plain :class:`TetherError` for a code that is not known here.

    Args:
      retry_after: See :class:`TetherError`.
    """
    error = _errors_by_code().get(code, TetherError)(message)
    error.retry_after = retry_after
    return error


@cache
def _errors_by_code() -> dict[str, type[TetherError]]:
    found: dict[str, type[TetherError]] = {}
    waiting: list[type[TetherError]] = [TetherError]
    while waiting:
        kind = waiting.pop(0)
        found.setdefault(kind.code, kind)
        waiting += kind.__subclasses__()
    return found


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
