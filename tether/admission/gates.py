"""The gates in their order. A further one is a module beside this one, and a name in the row."""

from __future__ import annotations

from tether.admission.breaker_closed import breaker_closed
from tether.admission.facts import AdmissionFacts, Gate
from tether.admission.fits_model import fits_model
from tether.admission.known_model import known_model
from tether.admission.known_tenant import known_tenant
from tether.admission.policy_gates import allowed_by_policy, readable_policy
from tether.errors import TetherError
from tether.jobs import JobRequest

GATES: tuple[Gate, ...] = (
    readable_policy,
    known_model,
    known_tenant,
    allowed_by_policy,
    fits_model,
    breaker_closed,
)
"""The tenant's quota is no gate: two requests at once could both pass it, so the commit itself counts."""

POLICY_GATES: tuple[Gate, ...] = (readable_policy, known_model, allowed_by_policy)
"""What a synchronous route asks before it looks whether anybody could serve the job."""


def first_refusal(
    request: JobRequest, facts: AdmissionFacts, gates: tuple[Gate, ...] = GATES
) -> TetherError | None:
    """Return why the request is rejected, by the first gate that rejects it; None if it passes all."""
    return next((refusal for gate in gates if (refusal := gate(request, facts)) is not None), None)
