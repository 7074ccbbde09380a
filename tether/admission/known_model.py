"""The gate that asks whether the model is configured."""

from __future__ import annotations

from tether.admission.facts import AdmissionFacts
from tether.errors import UnknownModel
from tether.jobs import JobRequest


def known_model(request: JobRequest, facts: AdmissionFacts) -> UnknownModel | None:
    """Refuse a model, or a version of one, that is not configured; the message names the nearest."""
    try:
        facts.registry.find(request.model)
    except UnknownModel as error:
        return error
    return None
