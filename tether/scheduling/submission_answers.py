"""What becomes of a submission, in the words of whoever made it: pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dramatiq import Message

from tether.admission.open_job_quota import over_quota
from tether.errors import KeyConflict, RetryTokenSpent, TetherError
from tether.jobs import JobRequest, Submitted
from tether.rate_limits import RateStanding
from tether.scheduling.infer_messages import InferMessage
from tether.store.admissions import Admission, AdmissionKind


def message_or_error(sent: Message[Any], answer: InferMessage | Exception) -> Message[Any] | Exception:
    """What a program gets back: the message that it sent, under the job's id."""
    if isinstance(answer, Exception) or isinstance(sent, InferMessage):
        return answer
    return sent.copy(message_id=answer.message_id)


def admission_answer(
    envelope: InferMessage,
    request: JobRequest,
    admission: Admission,
    standings: tuple[RateStanding, ...] = (),
) -> InferMessage | TetherError:
    """The envelope under the id of the job that has the request's keys, or why there is none."""
    tenant = envelope.tenant_id
    if admission.kind is AdmissionKind.CONFLICT:
        return KeyConflict(
            f"correlation id {request.correlation_id!r} with retry token {request.retry_token!r} belongs to "
            f"job {admission.job_id}, which is a different request: send the same request, or use other keys"
        )
    if admission.kind is AdmissionKind.OVER_QUOTA:
        return over_quota(tenant, admission.depth)
    if admission.kind is AdmissionKind.LETTER_CLOSED:
        return RetryTokenSpent(
            f"the dead letter of job {envelope.retry_of} was closed meanwhile: `tether dlq show` tells how"
        )
    assert admission.state is not None
    submitted = Submitted(
        admission.job_id,
        request.correlation_id,
        request.retry_token,
        admission.state,
        admission.kind is AdmissionKind.ACCEPTED,
        admission.degraded_from,
        standings,
    )
    return replace(envelope, message_id=admission.job_id, request=request, submitted=submitted)
