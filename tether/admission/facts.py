"""What the gates of admission judge a request by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tether.errors import BreakerOpen, TetherError
from tether.ids import TenantId
from tether.jobs import JobRequest
from tether.models.registry import Registry
from tether.policies.document import NO_POLICY
from tether.policies.kept import TenantPolicy


@dataclass(frozen=True, kw_only=True)
class AdmissionFacts:
    """Read once for each request, before the first gate.

    Attributes:
      registry: The configured models.
      tenant_id: On whose behalf it is submitted.
      tenant_weight: The tenant's share against others'; None where there is no such tenant.
      now_ms: Milliseconds since the epoch.
      policy: What the tenant may do.
      shut_out: That a breaker keeps a request which does not wait from all pools that could serve it; None
        where none does, or the request waits.
    """

    registry: Registry
    tenant_id: TenantId
    tenant_weight: float | None
    now_ms: int
    policy: TenantPolicy = NO_POLICY
    shut_out: BreakerOpen | None = None


Gate = Callable[[JobRequest, AdmissionFacts], TetherError | None]
"""Return why the request is refused, or None where this gate lets it pass. Pure."""
