"""The gate that asks whether a breaker keeps the request from all pools."""

from __future__ import annotations

from tether.admission.facts import AdmissionFacts
from tether.errors import BreakerOpen
from tether.jobs import JobRequest


def breaker_closed(request: JobRequest, facts: AdmissionFacts) -> BreakerOpen | None:
    """Refuse what is not to wait and would have to. Of jobs that wait the breaker lets one try."""
    return facts.shut_out
