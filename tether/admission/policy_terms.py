"""What a tenant's policy makes of a request before the gates judge it: pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tether.admission.policy_gates import unreadable
from tether.errors import UnknownModel
from tether.ids import TenantId
from tether.jobs import JobRequest
from tether.models.registry import ModelVersion, Registry
from tether.policies.decisions import lesser_models, model_meant, priority_unnamed, spending_quotas
from tether.policies.document import NO_POLICY
from tether.policies.kept import TenantPolicy, UnreadablePolicy
from tether.requests.fields import MAX_TIME_MS
from tether.spending import UNLIMITED, SpendingQuotas


def version_meant(registry: Registry, tenant: TenantId, policy: TenantPolicy, name: str) -> ModelVersion:
    """Return the version of a model that a tenant means by a name.

    Raises:
      UnknownModel: No such model is configured.
      PolicyUnreadable: Nor is known for what the name stands.
    """
    if not isinstance(policy, UnreadablePolicy):
        return registry.find(model_meant(policy, name))
    try:
        return registry.find(name)
    except UnknownModel:
        raise unreadable(tenant, policy) from None


def request_meant(request: JobRequest, policy: TenantPolicy, now_ms: int) -> JobRequest:
    """Return the request with the model that an alias stands for, and with the policy's defaults.

    It says what the job is. Whether two requests are the same is said by the one that was given: a policy may
    change between the two.

    Args:
      now_ms: Milliseconds since the epoch.
    """
    if isinstance(policy, UnreadablePolicy):
        return request
    model = model_meant(policy, request.model)
    if model != request.model:
        request = replace(request, model=model)
    if not request.names("priority"):
        priority = priority_unnamed(policy, request.priority)
        if priority is not request.priority:
            request = replace(request, priority=priority)
    limit = policy.defaults.time_limit_ms
    if limit is not None and not request.deadline:
        request = replace(request, deadline=min(max(now_ms, request.not_before) + limit, MAX_TIME_MS))
    return request


def degraded_requests(request: JobRequest, policy: TenantPolicy, model: ModelVersion) -> Iterator[JobRequest]:
    """Yield what the tenant's policy lets run instead of a request that would be refused since nobody can
    begin with it now, the best first.

    Args:
      model: The version that the request asks for.
    """
    if isinstance(policy, UnreadablePolicy) or request.adapter:
        return
    for rule in lesser_models(policy, model.name, model.version):
        tokens = min(rule.max_tokens or request.sampling.max_tokens, request.sampling.max_tokens)
        yield replace(request, model=rule.to, sampling=replace(request.sampling, max_tokens=tokens))


def retention_meant(policy: TenantPolicy) -> int | None:
    """Return for how many milliseconds the tenant's jobs are kept once they have ended; None is as long as
    any."""
    return None if isinstance(policy, UnreadablePolicy) else policy.defaults.retention_ms


def quotas_meant(policy: TenantPolicy) -> SpendingQuotas:
    """Return how much the tenant may spend. One whose policy is unreadable is refused before."""
    if policy is NO_POLICY or isinstance(policy, UnreadablePolicy):
        return UNLIMITED
    return spending_quotas(policy)
