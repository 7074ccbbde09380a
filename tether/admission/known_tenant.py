"""The gate that asks whether the tenant exists."""

from __future__ import annotations

from tether.admission.facts import AdmissionFacts
from tether.errors import InvalidRequest
from tether.jobs import JobRequest


def known_tenant(request: JobRequest, facts: AdmissionFacts) -> InvalidRequest | None:
    """Refuse a tenant that nobody has created."""
    if facts.tenant_weight is None:
        return InvalidRequest(f"there is no tenant {facts.tenant_id!r}: create it first, or name another")
    return None
