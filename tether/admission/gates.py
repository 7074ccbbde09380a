"""The gates in their order. A further one is a module beside this one, and a name in the row."""

from __future__ import annotations

from tether.admission.facts import AdmissionFacts, Gate
from tether.admission.fits_model import fits_model
from tether.admission.known_model import known_model
from tether.admission.known_tenant import known_tenant
from tether.errors import TetherError
from tether.jobs import JobRequest

GATES: tuple[Gate, ...] = (known_model, known_tenant, fits_model)
"""The tenant's quota is no gate: two requests at once could both pass it, so the commit itself counts."""


def first_refusal(
    request: JobRequest, facts: AdmissionFacts, gates: tuple[Gate, ...] = GATES
) -> TetherError | None:
    """Return why the request is rejected, by the first gate that rejects it; None if it passes all."""
    return next((refusal for gate in gates if (refusal := gate(request, facts)) is not None), None)
