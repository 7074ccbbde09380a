"""The JSON of a submission: what is asked for, and what was accepted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tether.codec import value_to_json
from tether.jobs import JobRequest, JobState, Submitted
from tether.requests import fields


def request_to_json(request: JobRequest) -> dict[str, Any]:
    """A request as the body of a submission. Times that were asked for as delays are sent as delays."""
    return fields.TABLE.wire_form.of(request)


def submitted_to_json(submitted: Submitted) -> dict[str, Any]:
    document = {"object": "job.submitted", **value_to_json(submitted)}
    # Over HTTP, these are headers.
    del document["standings"]
    return document


def submitted_from_json(value: Mapping[str, Any]) -> Submitted:
    # By hand: it is all that `tether submit` reads, which so does without loading msgspec.
    submitted = Submitted(
        job_id=value["job_id"],
        correlation_id=value["correlation_id"],
        retry_token=value["retry_token"],
        state=JobState(value["state"]),
        is_new=value["is_new"],
        degraded_from=value.get("degraded_from"),
    )
    texts = [submitted.job_id, submitted.correlation_id, submitted.retry_token, submitted.degraded_from or ""]
    if not all(isinstance(text, str) for text in texts) or type(submitted.is_new) is not bool:
        raise ValueError("a field of what was submitted is of another type")
    return submitted
