"""What callers change for others than themselves, in the audit log."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from tether.gateway.keys.key_ring import Caller
from tether.gateway.receiving import BodyLimit
from tether.gateway.services import GatewayServices
from tether.ids import TenantId
from tether.store.audit import Act, Audited, new_act_id

SMALL_BODY = BodyLimit(4_096)
"""Of a request that names what shall be done."""

MAX_TARGET_CHARACTERS = 200


def act_of(
    caller: Caller,
    request: Request,
    action: str,
    target: str,
    tenant_id: TenantId | None = None,
    **details: Any,
) -> Act:
    """An act of a caller, from the address of the connection: behind a proxy, that of the proxy."""
    return Act(
        act_id=new_act_id(),
        actor=caller.key_id,
        address=request.client.host if request.client else "",
        action=action,
        target=target[:MAX_TARGET_CHARACTERS].replace("\0", "\N{REPLACEMENT CHARACTER}"),
        tenant_id=tenant_id,
        details=details,
    )


def log_of(edge: GatewayServices) -> Audited:
    """Does acts with their entries."""
    plane = edge.core().plane
    return Audited(plane.store, plane.clock.now_ms)
