"""The gates that ask the tenant's policy."""

from __future__ import annotations

from tether.admission.facts import AdmissionFacts
from tether.errors import PolicyRefused, PolicyUnreadable
from tether.ids import TenantId
from tether.jobs import JobRequest, Priority
from tether.policies.decisions import why_not_gpu_class, why_not_model, why_not_priority, why_not_region
from tether.policies.kept import TenantPolicy, UnreadablePolicy

ASK = "ask for what it allows, or have an operator change it (`tether policies set`)"


def readable_policy(request: JobRequest, facts: AdmissionFacts) -> PolicyUnreadable | None:
    """Refuse whatever a tenant asks for whose policy cannot be read: nobody knows what it may do."""
    if isinstance(facts.policy, UnreadablePolicy):
        return unreadable(facts.tenant_id, facts.policy)
    return None


def unreadable(tenant: TenantId, policy: UnreadablePolicy) -> PolicyUnreadable:
    """Return the error of a policy that cannot be read."""
    return PolicyUnreadable(
        f"the policy of tenant {tenant!r}, {policy.in_words}. Until it can be, nothing of this tenant is "
        "accepted: update all gateways and orchestrators, or set the policy anew with `tether policies set`"
    )


def allowed_by_policy(request: JobRequest, facts: AdmissionFacts) -> PolicyRefused | None:
    """Refuse models, regions, GPU classes and priorities that the tenant's policy does not allow.

    It comes after :func:`~tether.admission.known_model.known_model`. What a job only prefers is not refused:
    it runs elsewhere.
    """
    policy = facts.policy
    if isinstance(policy, UnreadablePolicy):
        return None
    model = facts.registry.find(request.model)
    # Where the job, or the version that it names, cannot be served but in one place.
    region = "" if "region" in request.preferred else request.region
    gpu_class = "" if "gpu_class" in request.preferred else request.gpu_class
    if not request.any_version:
        region, gpu_class = region or model.region, gpu_class or model.gpu_class
    reasons = (
        ("model", why_not_model(policy, model.name, model.version)),
        ("region", why_not_region(policy, region) if region else ""),
        ("gpu_class", why_not_gpu_class(policy, gpu_class) if gpu_class else ""),
        ("priority", why_not_priority(policy, request.priority)),
    )
    for field, why in reasons:
        if why:
            return _refusal(facts.tenant_id, field, why)
    return None


def priority_refusal(
    tenant: TenantId, policy: TenantPolicy, priority: Priority
) -> PolicyRefused | PolicyUnreadable | None:
    """Return why jobs of a tenant may not have a priority class; None where they may."""
    if isinstance(policy, UnreadablePolicy):
        return unreadable(tenant, policy)
    why = why_not_priority(policy, priority)
    return _refusal(tenant, "priority", why) if why else None


def _refusal(tenant: TenantId, field: str, why: str) -> PolicyRefused:
    error = PolicyRefused(f"the policy of tenant {tenant!r} does not allow this: {why}; {ASK}")
    error.param = field
    return error
