"""The request of a dead job, made again from what the database keeps of it: pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace

from tether.envelopes import Placeable, options_from_text
from tether.errors import LetterDamaged, TetherError
from tether.jobs import JobRequest
from tether.requests.fields import MAX_TIME_MS, TABLE
from tether.requests.payload import read_payload
from tether.scheduling.infer_messages import TRACEPARENT

_TIMES = ("not_before", "deadline", "delay_ms", "time_limit_ms", "expires_at", "expires_in_ms")
_ENVELOPE = frozenset(field.name for field in fields(Placeable)) - {"model", "retry_on", "prefer", *_TIMES}


def request_of_dead_job(
    job: Placeable,
    *,
    labels: Mapping[str, str],
    correlation_id: str,
    retry_token: str,
    accepted_at: int,
    now_ms: int,
) -> JobRequest:
    """The request for the same work, under the token of its dead letter.

    It asks for the version of the model that the dead job ran on, and may start at once. A deadline becomes a
    time limit as long as the dead job had from when it might start; so does ``expires_at``.

    Args:
      accepted_at: When the dead job was accepted, in milliseconds since the epoch.

    Raises:
      LetterDamaged: The payload is gone or cannot be read.
    """
    try:
        values = json.loads(job.payload)
        if not isinstance(values, dict):
            raise ValueError("it is no object")
        payload = read_payload(values)
    except (ValueError, RecursionError, TetherError) as error:
        raise LetterDamaged(
            f"the payload of job {job.job_id} is gone or cannot be read ({str(error)[:300]}): submit the job "
            "again as a new one"
        ) from None
    of_envelope = {
        name: getattr(job, name)
        for name, each in TABLE.fields.items()
        if name in _ENVELOPE and not each.is_in_payload
    }
    request = JobRequest(
        model=f"{job.model}@{job.model_version}" if job.model_version else job.model,
        prompt=payload.prompt,
        messages=payload.messages,
        sampling=payload.sampling,
        adapter=payload.adapter,
        labels=dict(labels),
        retry_on=tuple(job.retry_on.split()),
        prefer=tuple(sorted(job.preferred)),
        correlation_id=correlation_id,
        retry_token=retry_token,
        traceparent=str(options_from_text(job.options).get(TRACEPARENT) or ""),
        named=frozenset(of_envelope),
        **of_envelope,
    )
    if job.expires_in_ms:
        request = replace(
            request,
            expires_in_ms=job.expires_in_ms,
            expires_at=min(now_ms + job.expires_in_ms, MAX_TIME_MS),
        )
    if not job.deadline:
        return request
    limit = max(job.deadline - max(accepted_at, job.not_before), 1)
    return replace(request, time_limit_ms=limit, deadline=min(now_ms + limit, MAX_TIME_MS))
