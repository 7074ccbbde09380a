"""Messages of the queue ``infer``: the envelopes of jobs, as Dramatiq's middleware sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dramatiq import Message

from tether.broker.keys import INFER
from tether.ids import JobId, TenantId
from tether.jobs import JobRequest, Submitted

TRACEPARENT = "traceparent"


@dataclass(frozen=True, kw_only=True)
class InferMessage(Message[Any]):
    """A job on its way to the database. Its ``message_id`` is the job's id, and what middleware puts into its
    ``options`` before it is enqueued travels with the job to the worker's middleware.

    Attributes:
      request: What is asked for, checked.
      tenant_id: On whose behalf.
      retry_of: The dead job that it retries; None if it retries none.
      is_promised: Whether a worker was told already that it will be a job: rate limits count it, and do not
        refuse it.
      submitted: What became of it; None until it is enqueued.
    """

    request: JobRequest
    tenant_id: TenantId
    retry_of: JobId | None = None
    is_promised: bool = False
    submitted: Submitted | None = None

    @classmethod
    def of(cls, request: JobRequest, tenant_id: TenantId, *, job_id: JobId, now_ms: int) -> InferMessage:
        """The envelope of a new job, made at ``now_ms`` (milliseconds since the epoch)."""
        return cls(
            queue_name=INFER,
            actor_name=INFER,
            args=(),
            kwargs={"model": request.model},
            options={TRACEPARENT: request.traceparent} if request.traceparent else {},
            message_id=job_id,
            message_timestamp=now_ms,
            request=request,
            tenant_id=tenant_id,
        )


def submission_of(answer: Message[Any] | Exception) -> Submitted | Exception:
    """What enqueueing an :class:`InferMessage` answered, for who submitted it."""
    if isinstance(answer, Exception):
        return answer
    assert isinstance(answer, InferMessage)
    assert answer.submitted is not None
    return answer.submitted
