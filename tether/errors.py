"""Every error that Tether raises on purpose: one hierarchy, with the codes and statuses of each boundary.

``ops/generate-docs`` makes ``docs/reference/errors.md`` of these classes: the paragraph ``What to do:`` of a
docstring says what helps, what stands before it what the error means.

A message says what is wrong, where, and what to do. It never holds a secret: a URL is masked
(:func:`mask_url`) before it is put into one.
"""

from __future__ import annotations

from functools import cache
from typing import ClassVar

from tether.rate_limits import RateMeasure, RateStanding

__all__ = [
    "AddressInUse",
    "AlreadyRunning",
    "BreakerNotFound",
    "BreakerOpen",
    "BrokerUnavailable",
    "ChangeUnfinished",
    "ClientClosed",
    "CommandUnanswered",
    "CommitUnknown",
    "ConfigError",
    "DiskFull",
    "EngineFailed",
    "EpochChanged",
    "Forbidden",
    "GatewayStopping",
    "GatewayUnavailable",
    "GatewayUnknown",
    "HeadersTooLarge",
    "InvalidAnnouncement",
    "InvalidCommand",
    "InvalidMessage",
    "InvalidName",
    "InvalidPolicy",
    "InvalidRequest",
    "JobCancelled",
    "JobEnded",
    "JobExpired",
    "JobFailed",
    "JobNotFound",
    "JobRefused",
    "KeyConflict",
    "KeyNotFound",
    "LetterDamaged",
    "LetterNotFound",
    "LetterNotRetryable",
    "MalformedBody",
    "MethodNotAllowed",
    "ModelDamaged",
    "ModelUnusable",
    "NoLiveWorker",
    "NoOtherPool",
    "NotServed",
    "OutputLost",
    "PolicyConflict",
    "PolicyNotFound",
    "PolicyRefused",
    "PolicyUnreadable",
    "PoolNotFound",
    "QueueFull",
    "QuotaExceeded",
    "RateLimited",
    "ReaderTooSlow",
    "RequestTimeout",
    "RequestTooLarge",
    "ResultTimeout",
    "RetryTokenSpent",
    "RetryTokenUnknown",
    "RouteUnknown",
    "ServerMissing",
    "ServerStartFailed",
    "SpendingExceeded",
    "StoreError",
    "StoreUnavailable",
    "StreamDiverged",
    "StreamInterrupted",
    "TenantNotFound",
    "TetherError",
    "TooManyRequests",
    "Unauthenticated",
    "UnexpectedAnswer",
    "UnknownModel",
    "WorkerLost",
    "WorkerNotFound",
    "WorkerOutranked",
    "WorkerRevoked",
    "error_of",
    "mask_url",
]


class TetherError(Exception):
    """Base class of every error that Tether raises on purpose; by itself, an internal error.

    What to do: Read the log of the process that failed, repeat a command with ``tether --debug``, and
    report it. If the command line itself failed, its exit status is 70.

    Attributes:
      code: Stable name for programs; it never changes once released.
      http_status: HTTP status of the gateway's response.
      exit_status: Exit status of the command line.
      retryable: Whether the same call can succeed later without being changed.
      retry_after: Minimum wait before a retry, in seconds; None if unknown.
      outward: What clients of a gateway are told in place of the message, where that names what is its
        operator's alone: where servers and files are, and what they said.
    """

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    exit_status: ClassVar[int] = 1
    retryable: ClassVar[bool] = False
    retry_after: float | None = None
    outward: str | None = None


class ConfigError(TetherError):
    """A setting is unknown, of the wrong type, or out of range.

    What to do: Correct the settings that the message names. ``tether config check`` validates all settings
    without starting anything.
    """

    code = "config_invalid"
    exit_status = 3


class InvalidName(TetherError, ValueError):
    """A queue name or namespace cannot safely be part of a Redis key.

    What to do: Choose another name; the message says which characters are allowed.
    """

    code = "name_invalid"
    http_status = 422
    exit_status = 2


class InvalidMessage(TetherError, ValueError):
    """A message cannot be enqueued: not encodable, a reserved option, or a delay out of range.

    What to do: Correct the field that the message names.
    """

    code = "message_invalid"
    http_status = 422
    exit_status = 2


class UnknownModel(TetherError):
    """A job requests a model that is not configured.

    What to do: Request a model that ``tether status`` or ``GET /v1/models`` lists, or add this one to
    ``[[models]]`` in the settings of gateways, orchestrators and workers.
    """

    code = "model_unknown"
    http_status = 404
    exit_status = 2
    param: str | None = "model"


class InvalidAnnouncement(TetherError, ValueError):
    """A worker's announcement is malformed, or not signed by a trusted worker.

    What to do: Enrol the worker's key with ``tether fleet trust`` if the reason is ``untrusted``. For
    any other reason, run the same version of Tether everywhere and synchronize the machines' clocks.

    Attributes:
      reason: A short stable code of the reason.
    """

    code = "announcement_invalid"
    http_status = 422
    exit_status = 2

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.reason = reason


class InvalidCommand(TetherError, ValueError):
    """A command to a worker is malformed, not signed by an operator, or expired.

    What to do: Add the operator's public key to the worker's ``presence.operator_keys`` if the reason
    is ``untrusted``, and synchronize the machines' clocks if it is ``expired`` or ``life``.

    Attributes:
      reason: A short stable code of the reason.
    """

    code = "command_invalid"
    http_status = 422
    exit_status = 2

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.reason = reason


class CommandUnanswered(TetherError, TimeoutError):
    """A worker has not confirmed a command in time; it may still execute it.

    What to do: Check again with ``tether fleet show``, and read the worker's log: it says why a command
    was rejected.
    """

    code = "command_unanswered"
    http_status = 504
    exit_status = 4
    retryable = True


class BrokerUnavailable(TetherError):
    """Redis could not be reached, or rejects writes: it is not known whether a message was enqueued.

    What to do: Retry once Redis is reachable and accepts writes. A plain message that is retried may run
    twice; a job with the same keys is the same job.
    """

    code = "broker_unavailable"
    http_status = 503
    exit_status = 4
    retryable = True


class NoLiveWorker(TetherError):
    """No live worker serves the model of a synchronous or interactive request: nothing was accepted.

    What to do: Start a worker for the model, retry later, or submit a job of class ``standard`` to
    ``/v1/jobs``, which waits for a worker.
    """

    code = "no_live_worker"
    http_status = 503
    exit_status = 4
    retryable = True


class QueueFull(TetherError):
    """The pools of the model take no more jobs of the tenant, and a synchronous or interactive request is not
    to wait: nothing was accepted.

    What to do: Retry after the time that it says, in which the request would have begun; our clients do so
    while their patience lasts. Or submit a job of class ``standard`` to ``/v1/jobs``, which waits.
    """

    code = "queue_full"
    http_status = 429
    exit_status = 4
    retryable = True


class BreakerOpen(TetherError):
    """The circuit breaker of the model is open in every region that could serve a synchronous or interactive
    request, since attempts failed there: nothing was accepted.

    What to do: Retry after the time that it says, or submit a job of class ``standard`` to ``/v1/jobs``,
    which waits. An operator looks at ``tether breakers list``.
    """

    code = "breaker_open"
    http_status = 503
    exit_status = 4
    retryable = True


class ServerMissing(TetherError):
    """A server program that Tether needs to run is not installed on this machine.

    What to do: Install the program that the message names.
    """

    code = "server_missing"
    exit_status = 5


class ServerStartFailed(TetherError):
    """A server program that Tether started exited before it was ready.

    What to do: Read the program's output, in the message or in its log (``tether logs``), and fix the
    cause.
    """

    code = "server_start_failed"
    exit_status = 5
    retryable = True


class AddressInUse(TetherError):
    """Another program is already listening on the address configured for a server.

    What to do: Stop the other program, or choose another port with ``--port``.
    """

    code = "address_in_use"
    exit_status = 5


class AlreadyRunning(TetherError):
    """A Tether is already running on this state folder.

    What to do: Use the running one, stop it with ``tether down``, or choose another folder with
    ``--dir``.
    """

    code = "already_running"
    exit_status = 5


class DiskFull(TetherError):
    """The disk does not have enough free space.

    What to do: Free disk space, or choose a folder on another disk with ``--dir``.
    """

    code = "disk_full"
    exit_status = 74


class StoreError(TetherError):
    """The database rejected an operation, or is unusable: the same call would fail again.

    What to do: Follow the message. A database of a newer version needs the version of Tether that
    created it.
    """

    code = "store_failed"
    outward = "the database rejected the operation: the gateway's log says why"


class StoreUnavailable(StoreError):
    """The database could not be reached, was locked for too long, or is full: nothing was written.

    What to do: Retry the same request, with the same keys, once the database is reachable.
    """

    code = "store_unavailable"
    outward = "the database is not available: nothing was accepted; send the same request again once it is"
    http_status = 503
    exit_status = 4
    retryable = True


class ChangeUnfinished(StoreUnavailable):
    """The database became unavailable after a change was written, before all that follows it was done.

    The change stands, and what follows it is done within minutes.

    What to do: Nothing, or send the same request again, so that it is done at once.
    """

    code = "change_unfinished"
    outward = (
        "the database became unavailable after the change was written: it stands, and takes effect within "
        "minutes, or at once when the same request is sent again"
    )


class CommitUnknown(StoreUnavailable):
    """The connection to the database was lost during a commit.

    It is not known whether the transaction was committed: retry the same request with the same key.

    What to do: Retry the same request with the same key: if it was committed, that returns the same job.
    """

    code = "commit_unknown"
    outward = (
        "the connection to the database was lost in a commit: it is not known whether that was written; send "
        "the same request again with the same key"
    )


class InvalidRequest(TetherError, ValueError):
    """A request is invalid: fields are missing, unknown, of the wrong type or out of range.

    What to do: Correct every field that the message names.

    Attributes:
      param: The first invalid field, as the client calls it; None where there is no single one.
    """

    code = "request_invalid"
    http_status = 422
    exit_status = 2
    param: str | None = None


class KeyConflict(TetherError):
    """The idempotency key was already used for a different request.

    What to do: Use a different key for a different request. The message names the job that has this one.
    """

    code = "key_conflict"
    http_status = 409
    exit_status = 2


class QuotaExceeded(TetherError):
    """The tenant has reached its quota of open jobs. New ones are accepted once some have ended.

    What to do: Wait until some jobs have ended, or raise the quota with ``tether tenants set``.
    """

    code = "quota_exceeded"
    http_status = 429
    exit_status = 4
    retryable = True
    retry_after: float | None = 1.0


class RateLimited(TetherError):
    """The tenant asks for more than its policy's rate limits allow: nothing was accepted or charged.

    What to do: Try again after ``retry_after`` seconds (``Retry-After`` over HTTP); our clients do so while
    their patience lasts. An operator changes ``limits`` in the tenant's policy.

    Attributes:
      measure: What ran out: ``requests`` or ``tokens``. None where only the gateway knows.
      standings: What is left of each limit; empty where only the gateway knows.
    """

    code = "rate_limited"
    http_status = 429
    exit_status = 4
    retryable = True
    measure: RateMeasure | None = None
    standings: tuple[RateStanding, ...] = ()


class SpendingExceeded(QuotaExceeded):
    """The job has no room in what its tenant may spend in this day or month, of requests or tokens.

    What to do: Wait until the day or the month ends, in UTC, ask for fewer tokens, or raise the quota in the
    tenant's policy. ``tether tenants usage`` shows what is spent and held.
    """

    code = "spending_exceeded"
    retry_after: float | None = None


class JobNotFound(TetherError, LookupError):
    """There is no such job, or it belongs to another tenant.

    What to do: Check the id, and use an API key of the job's own tenant. Ended jobs are deleted after
    ``jobs.retention``, 30 days by default.
    """

    code = "job_unknown"
    http_status = 404
    exit_status = 2


class JobEnded(TetherError):
    """The job has ended: nothing of it can be changed any more.

    What to do: Look at how it ended (``tether jobs show ID``), and submit a new job if one is needed.
    """

    code = "job_ended"
    http_status = 409
    exit_status = 2


class LetterNotFound(TetherError, LookupError):
    """There is no dead letter of this job, or the job belongs to another tenant.

    What to do: ``tether dlq list`` lists the dead letters there are.
    """

    code = "letter_unknown"
    http_status = 404
    exit_status = 2


class RetryTokenUnknown(TetherError, LookupError):
    """No dead letter of yours has this retry token: it was never issued, or its job was deleted long ago.

    What to do: Take the token from ``tether dlq list`` or ``tether dlq show``.
    """

    code = "retry_token_unknown"
    http_status = 404
    exit_status = 2


class RetryTokenSpent(TetherError):
    """The retry token can make no job any more: its dead letter was purged or has expired, or the job that it
    made was deleted.

    What to do: Submit the job again as a new one, if it is still needed.
    """

    code = "retry_token_spent"
    http_status = 410
    exit_status = 2


class LetterNotRetryable(TetherError):
    """The dead letter says that a retry would fail in the same way.

    What to do: Mend what its error names, and retry it by force: ``tether dlq retry --force``.
    """

    code = "letter_not_retryable"
    http_status = 409
    exit_status = 2


class LetterDamaged(TetherError):
    """What the database keeps of a dead letter or its job is gone, or cannot be read or changed.

    What to do: Submit the job again from where its prompt came from. `tether admin fsck` tells what else is
    damaged.
    """

    code = "letter_damaged"
    http_status = 410
    exit_status = 5


class ResultTimeout(TetherError, TimeoutError):
    """A job has not finished within the caller's timeout. It continues.

    What to do: Wait again with the job's id, follow its stream, or cancel it.
    """

    code = "result_timeout"
    http_status = 504
    exit_status = 4
    retryable = True


class JobFailed(TetherError):
    """A job failed permanently.

    What to do: Read why in the job's status (``tether jobs show ID``), fix that, and submit a new job.
    """

    code = "job_failed"


class JobCancelled(JobFailed):
    """A job was cancelled.

    What to do: Submit it again with another idempotency key if it is still needed.
    """

    code = "job_cancelled"
    http_status = 409
    exit_status = 8


class JobExpired(JobFailed):
    """A job did not finish by its deadline, or no worker began it in time.

    What to do: Submit it again with another idempotency key and a longer ``time_limit`` or ``expires_in``.
    """

    code = "job_expired"
    http_status = 504
    exit_status = 9


class OutputLost(JobFailed):
    """A job succeeded, and Redis lost some of its output before the database had it.

    What to do: Submit the job again with another idempotency key. ``tether doctor`` says whether Redis may
    evict keys or lose writes.
    """

    code = "output_lost"


class InvalidPolicy(InvalidRequest):
    """The document of a policy is invalid: fields are unknown, of the wrong type, or contradict others.

    What to do: Correct every field that the message names. ``tether policies check`` validates a document
    without setting it.
    """

    code = "policy_invalid"


class MalformedBody(InvalidRequest):
    """The body of a request is not a JSON object in UTF-8.

    What to do: Send a JSON object in UTF-8. The message says where the first error is.
    """

    code = "body_malformed"
    http_status = 400


class RequestTooLarge(InvalidRequest):
    """A request is larger than the gateway accepts.

    What to do: Send a smaller request, or divide it into several. ``gateway.body_limit``, and for batches
    ``gateway.batch_body_limit``, is the maximum size of a body.
    """

    code = "request_too_large"
    http_status = 413


class RequestTimeout(TetherError):
    """The body of a request did not arrive in time.

    What to do: Retry, and send the whole body without a pause.
    """

    code = "request_timeout"
    http_status = 408
    exit_status = 4
    retryable = True


class RouteUnknown(TetherError, LookupError):
    """The gateway has no such route.

    What to do: Check the URL against ``/openapi.json``.
    """

    code = "route_unknown"
    http_status = 404
    exit_status = 2


class MethodNotAllowed(RouteUnknown):
    """A route of the gateway does not allow this method.

    What to do: Use one of the methods in the header ``Allow``.
    """

    code = "method_not_allowed"
    http_status = 405


class HeadersTooLarge(RequestTooLarge):
    """The headers of a request are larger than the gateway accepts.

    What to do: Send fewer or shorter headers, or raise ``gateway.header_limit``.
    """

    code = "headers_too_large"
    http_status = 431


class Unauthenticated(TetherError):
    """A request has no API key, or one that is unknown or revoked.

    What to do: Send ``Authorization: Bearer`` and a key from ``tether keys create``; programs read it from
    ``TETHER_API_KEY``.
    """

    code = "unauthenticated"
    http_status = 401
    exit_status = 6


class Forbidden(TetherError):
    """An API key lacks the scope that a request needs.

    What to do: Use a key with that scope: ``tether keys create --scope``.
    """

    code = "forbidden"
    http_status = 403
    exit_status = 6


class PolicyRefused(TetherError):
    """The tenant's policy does not allow this model, region, GPU class or priority: nothing was accepted.

    What to do: Ask for what the message says is allowed, or have an operator change the policy (``tether
    policies show``, ``tether policies set``).

    Attributes:
      param: The field that is not allowed, as the client calls it.
    """

    code = "policy_refused"
    http_status = 403
    exit_status = 6
    param: str | None = None


class PolicyUnreadable(TetherError):
    """The tenant's policy cannot be read: it is damaged, or was written by a newer version of Tether.

    Nothing of this tenant is accepted, and its waiting jobs stay where they are, until it can be read. Other
    tenants are not affected.

    What to do: Update all gateways and orchestrators to the newest version that runs, or set the policy anew
    (``tether policies set``).
    """

    code = "policy_unreadable"
    http_status = 503
    exit_status = 4
    retryable = True


class PolicyConflict(TetherError):
    """The policy has another version than the one that was to be replaced: somebody has set it meanwhile.

    What to do: Look at what it is now (``tether policies show``, ``tether policies diff``), and set it again.
    """

    code = "policy_conflict"
    http_status = 409
    exit_status = 2


class PolicyNotFound(TetherError, LookupError):
    """The tenant's policy has no such version.

    What to do: ``tether policies show`` tells the newest version; all from 1 on are kept.
    """

    code = "policy_unknown"
    http_status = 404
    exit_status = 2


class KeyNotFound(TetherError, LookupError):
    """There is no such API key, or it belongs to another tenant.

    What to do: Check the id with ``tether keys list --all``.
    """

    code = "key_unknown"
    http_status = 404
    exit_status = 2


class WorkerNotFound(TetherError, LookupError):
    """There is no such worker.

    What to do: Check the id or name with ``tether fleet list`` and ``tether fleet keys``.
    """

    code = "worker_unknown"
    http_status = 404
    exit_status = 2


class PoolNotFound(TetherError, LookupError):
    """There is no such pool: no worker announces it, and it has no jobs.

    What to do: Check the name with ``tether pools list``.
    """

    code = "pool_unknown"
    http_status = 404
    exit_status = 2


class BreakerNotFound(TetherError, LookupError):
    """There is no such circuit breaker: no attempt of the model has ended in the region lately.

    What to do: Check the names with ``tether breakers list``.
    """

    code = "breaker_unknown"
    http_status = 404
    exit_status = 2


class NoOtherPool(TetherError):
    """What waits in a pool cannot be moved: no other pool can serve it now.

    What to do: Start a worker for its model elsewhere; or pause the pool, and let the jobs wait in the
    database with ``tether pools move --park``.
    """

    code = "no_other_pool"
    http_status = 409
    exit_status = 2


class TenantNotFound(TetherError, LookupError):
    """There is no such tenant.

    What to do: Check the id with ``tether tenants list``, or create the tenant with ``tether tenants
    create``.
    """

    code = "tenant_unknown"
    http_status = 404
    exit_status = 2


class TooManyRequests(TetherError):
    """A tenant has reached its limit of open streams or of request bodies in flight, or the gateway its limit
    of concurrent requests or of lists of jobs that are read at once.

    What to do: Retry after the time in ``Retry-After``, close unused streams, and send fewer large bodies at
    once. ``gateway.streams_per_tenant`` is the limit of streams, ``gateway.bodies_in_flight`` that of bodies.
    """

    code = "too_many_requests"
    http_status = 429
    exit_status = 4
    retryable = True


class StreamInterrupted(TetherError):
    """The gateway interrupted a stream. ``gateway_stopping``, ``reader_too_slow`` and ``stream_diverged``,
    which gateways send, say why; all are handled alike.

    What to do: Resume it from the id of the last event, at this or another gateway; Tether's own clients do
    so automatically. Retry a chat completion with its ``Idempotency-Key``.
    """

    code = "stream_interrupted"
    http_status = 503
    exit_status = 4
    retryable = True


class GatewayStopping(StreamInterrupted):
    """The gateway is shutting down, and ended a stream or a chat completion for that. The job continues.

    What to do: Resume the stream from the id of the last event, here once it is started again, or at another
    gateway; Tether's own clients do so automatically. Retry a chat completion with its ``Idempotency-Key``.
    """

    code = "gateway_stopping"


class ReaderTooSlow(StreamInterrupted):
    """A client reads a stream more slowly than its job writes it: more than ``gateway.stream_buffer`` bytes
    waited for it.

    What to do: Read without pauses: what is done with a token must not hold up the reading. Resume the stream
    from the id of the last event received; Tether's own clients do so automatically. Retry a chat completion
    with its ``Idempotency-Key``.
    """

    code = "reader_too_slow"


class StreamDiverged(StreamInterrupted):
    """Text of a chat completion was sent, and the job could not continue it identically: it began anew.

    What to do: Drop the text received, and retry the chat completion, with its ``Idempotency-Key`` if it had
    one. Streams of ``/v1/jobs`` do not end so: they have the event ``restarted``.
    """

    code = "stream_diverged"


class GatewayUnknown(ConfigError):
    """No gateway is configured, and none was found on this machine.

    What to do: Set ``TETHER_URL`` and ``TETHER_API_KEY``, or start a gateway on this machine with
    ``tether up``.
    """

    code = "gateway_unknown"


class GatewayUnavailable(TetherError):
    """The gateway could not be reached, or responded that it is not ready.

    It is not known whether a submission was accepted: submit again with the same keys.

    What to do: Check with ``tether status`` whether the gateway is serving, and submit again with the same
    keys.
    """

    code = "gateway_unavailable"
    http_status = 503
    exit_status = 4
    retryable = True


class UnexpectedAnswer(TetherError):
    """The response is not from a Tether gateway, or from one of an unsupported version.

    What to do: Check the URL and the responses of any proxy in front of the gateway, and use a client of
    the gateway's version.
    """

    code = "answer_unexpected"
    http_status = 502
    exit_status = 5


class EpochChanged(TetherError):
    """Redis lost the state of a worker's attempts: drop them all, say hello again, and continue.

    What to do: Nothing: workers do so automatically, and the jobs run again.
    """

    code = "epoch_changed"


class WorkerRevoked(TetherError):
    """A worker's key was revoked: it gets no more jobs, and its jobs go to other workers.

    What to do: If that was a mistake, trust the key with ``tether fleet trust --again``: the worker then
    draws jobs again by itself.
    """

    code = "worker_revoked"
    http_status = 403
    exit_status = 6


class WorkerOutranked(TetherError):
    """Another process uses a worker's key, and that one draws: this one gets no jobs until it is gone.

    What to do: Give each host an identity folder of its own, and start the worker again.
    """

    code = "worker_outranked"
    http_status = 409
    exit_status = 6


class ClientClosed(TetherError):
    """The client was closed, or belongs to another process, and cannot be used any more. Jobs continue.

    What to do: Create another client, in a forked process after the fork, and follow the job by its id.
    """

    code = "client_closed"


class JobRefused(TetherError):
    """A worker's `authorize` hook rejected a job. It is not retried.

    What to do: Read the reason in the job's error. The rules are in that worker's ``authorize`` hook.
    """

    code = "job_refused"
    http_status = 403


class EngineFailed(TetherError):
    """An engine failed, or violated its contract. Another attempt may succeed.

    What to do: Nothing if it happens once: the job is retried, with ``jobs.max_attempts`` attempts in all.
    Otherwise read the worker's log.
    """

    code = "engine_failed"
    retryable = True


class ModelDamaged(TetherError):
    """A model's files are damaged: one is missing, or differs from the released one. Another worker's may be
    whole.

    What to do: Restore the files that the message names.
    """

    code = "model_damaged"
    exit_status = 5
    retryable = True


class ModelUnusable(TetherError):
    """A model cannot be loaded as configured: it is missing, unsupported, or does not fit. Another worker may
    be able to load it.

    What to do: Change the model's ``[[models]]`` table or its files as the message says.
    """

    code = "model_unusable"
    exit_status = 5
    retryable = True


class NotServed(UnknownModel):
    """This worker does not serve the model. Another one may.

    What to do: Give all workers and gateways the same ``[[models]]`` tables.
    """

    retryable = True


class WorkerLost(TetherError):
    """The worker processes that ran a message or a job died, and it has no attempts left.

    What to do: Find out why the process dies: the log of ``tether worker`` has its exit status or signal.
    A message is in the dead letters of its queue. Of a job the orchestrator's log names the workers.
    """

    code = "worker_lost"


def error_of(code: str, message: str, retry_after: float | None = None) -> TetherError:
    """Return the error with this code; a plain :class:`TetherError` for an unknown code.

    Args:
      retry_after: See :class:`TetherError`.
    """
    error = _errors_by_code().get(code, TetherError)(message)
    error.retry_after = retry_after
    return error


def known_codes() -> frozenset[str]:
    """The codes of Tether's own errors. Engines of others may fail with further ones."""
    return frozenset(_errors_by_code())


@cache
def codes_above(code: str) -> frozenset[str]:
    """The code itself, and those of the errors that its error is one of."""
    kind = _errors_by_code().get(code)
    if kind is None:
        return frozenset((code,))
    kinds = (each for each in kind.__mro__ if issubclass(each, TetherError) and each is not TetherError)
    return frozenset((code, *(each.code for each in kinds)))


@cache
def _errors_by_code() -> dict[str, type[TetherError]]:
    by_code: dict[str, type[TetherError]] = {}
    waiting: list[type[TetherError]] = [TetherError]
    while waiting:
        kind = waiting.pop(0)
        if kind.__module__ == __name__:
            # Others, which add what a library asks for, share the code of one of these.
            by_code.setdefault(kind.code, kind)
        waiting += kind.__subclasses__()
    return by_code


def mask_url(url: str) -> str:
    """Return the URL with its password and query replaced by ``***``, fit for a log or a message.

    It need not be valid: everything before the last ``@`` that is not plainly a user's name is masked.
    """
    scheme, separator, rest = url.partition("://")
    credentials, at, place = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    if any(mark in user for mark in "/?#"):
        user = "***"
    place, query, _ = place.partition("?")
    return f"{scheme}{separator}{user}{':***' if colon else ''}{at}{place}{'?***' if query else ''}"
