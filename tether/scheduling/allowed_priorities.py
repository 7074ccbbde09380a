"""Other priorities for jobs that were submitted, as far as the policies of their tenants allow them."""

from __future__ import annotations

from collections.abc import Sequence

from tether.admission.policy_gates import priority_refusal
from tether.scheduling.known_policies import KnownPolicies
from tether.scheduling.reprioritisation import Reprioritisation
from tether.store.priorities import PrioritisedRow, PriorityChange


def change_allowed(
    policies: KnownPolicies, priorities: Reprioritisation, changes: Sequence[PriorityChange]
) -> list[PrioritisedRow | Exception | None]:
    """Write the priorities that policies allow, whoever asks; see :meth:`Reprioritisation.change`. In the
    place of each of the others is its error.

    Raises:
      StoreUnavailable: They were not written.
    """
    refusals = [
        None
        if each.tenant_id is None
        else priority_refusal(each.tenant_id, policies.of_tenant(each.tenant_id), each.priority)
        for each in changes
    ]
    allowed = [each for each, refusal in zip(changes, refusals, strict=True) if refusal is None]
    written = iter(priorities.change(allowed))
    return [next(written) if refusal is None else refusal for refusal in refusals]
