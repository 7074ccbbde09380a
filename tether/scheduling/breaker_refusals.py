"""Requests that do not wait, and that a breaker keeps from every pool: refused, with when to try again."""

from __future__ import annotations

from dataclasses import replace

from tether.admission.facts import AdmissionFacts
from tether.errors import BreakerOpen, UnknownModel
from tether.ids import TenantId
from tether.jobs import JobRequest, Priority
from tether.scheduling.pool_choice import PoolChoice


def waits_not(request: JobRequest) -> bool:
    """Whether a job is refused rather than accepted to wait."""
    return request.priority is Priority.INTERACTIVE and not request.not_before


def with_breakers(choice: PoolChoice, request: JobRequest, facts: AdmissionFacts) -> AdmissionFacts:
    """The facts by which a request is judged, with what breakers say of one that does not wait."""
    if not waits_not(request):
        return facts
    return replace(facts, shut_out=refusal_by_breaker(choice, request, facts.tenant_id))


def refusal_by_breaker(choice: PoolChoice, request: JobRequest, tenant: TenantId) -> BreakerOpen | None:
    """That a breaker keeps a request from all pools that could serve it; None where none does."""
    try:
        shut = choice.first_shut(request, tenant)
    except UnknownModel:
        return None
    if shut is None:
        return None
    error = BreakerOpen(
        f"{shut.words}. Try again in {shut.seconds} s, or submit a job of class standard to /v1/jobs, which "
        "waits"
    )
    error.retry_after = float(shut.seconds)
    return error
