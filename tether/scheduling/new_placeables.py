"""The envelope of a job to be, made of its request: pure."""

from __future__ import annotations

from dataclasses import fields

from tether.envelopes import Placeable, travelling_options
from tether.ids import JobId, TenantId
from tether.jobs import JobRequest, canonical_json
from tether.models.registry import ModelVersion
from tether.requests.fields import TABLE
from tether.requests.payload import payload_of
from tether.scheduling.infer_messages import InferMessage
from tether.scheduling.placement_requests import estimated_cost

_SETTLED = frozenset(("model", "retry_on", "expires_in_ms", "region", "prefer"))
"""What the envelope has in another form than the request: the model with its version, codes in one text, the
time from when the job may start, this process's region where none is named."""
_ENVELOPE = frozenset(field.name for field in fields(Placeable))
_AS_ASKED_FOR = tuple((name, field) for name, field in TABLE.fields.items() if name in _ENVELOPE - _SETTLED)
"""Fields of a request that stand in the envelope under the same name, as they are."""


def new_placeable(
    message: InferMessage,
    request: JobRequest,
    version: ModelVersion,
    *,
    weight: float,
    region: str,
    now_ms: int,
) -> Placeable:
    """Return the envelope of the job that a message makes.

    Args:
      request: What the job is to be, with its correlation id.
      version: The version of the model that it names.
      weight: The tenant's share against others'.
      region: Where jobs are best served that name no region; empty is anywhere.
      now_ms: Milliseconds since the epoch.
    """
    return Placeable(
        job_id=JobId(message.message_id),
        tenant_id=message.tenant_id,
        model=version.name,
        model_version=version.version,
        weight=weight,
        cost=estimated_cost(request),
        options=travelling_options(message.options),
        retry_on=" ".join(request.retry_on),
        region=request.region or region,
        prefer=" ".join(request.prefer if request.region or not region else (*request.prefer, "region")),
        expires_in_ms=_time_to_begin(request, now_ms),
        payload=_payload(request, version, message.tenant_id),
        **{name: field.value_in(request) for name, field in _AS_ASKED_FOR},
    )


def _time_to_begin(request: JobRequest, now_ms: int) -> int:
    """For how long a job waits for a worker at most, from when it may start; 0 is for ever."""
    if not request.expires_at:
        return 0
    asked_at = request.expires_at - request.expires_in_ms if request.expires_in_ms else now_ms
    return max(request.expires_at - max(asked_at, request.not_before), 1)


def _payload(request: JobRequest, version: ModelVersion, tenant: TenantId) -> str:
    body = {
        **payload_of(request),
        "model": version.name,
        "version": version.version,
        "tenant": tenant,
        "correlation_id": request.correlation_id,
    }
    if request.any_version:
        body["any_version"] = True
    return canonical_json(body).decode()
