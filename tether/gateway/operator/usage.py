"""The routes of what tenants have used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from tether.errors import TenantNotFound
from tether.gateway.jobs.queries import single
from tether.gateway.keys.api_keys import Scope
from tether.gateway.keys.key_ring import Caller
from tether.gateway.openapi import in_query
from tether.gateway.operator.documents import OPERATOR, TENANT_ID
from tether.gateway.operator.queries import tenant_in_query
from tether.gateway.responses import json_answer
from tether.gateway.routes import Reply, RoomRoutes
from tether.gateway.schemas import Document
from tether.gateway.services import GatewayServices
from tether.ids import TenantId
from tether.store.store import Store
from tether.store.tenants import tenant as tenant_of_id
from tether.store.usage_reports import UsageDays, read_usage_days, usage_report, usage_report_to_json

OPERATOR_ROUTES = RoomRoutes("operator", prefix=OPERATOR)
"""The route ``/v1/operator/usage``."""

ROUTES = RoomRoutes("usage", prefix="/v1")
"""The route ``/v1/usage``."""

_DATE = {"type": "string", "format": "date", "examples": ["2026-12-31"]}
_DAYS = [
    in_query("from", _DATE, "First day, of UTC. Without it, 30 days in all."),
    in_query("to", _DATE, "Last day. Without it, today."),
]


class UsageRowDocument(Document):
    """What a tenant has used of a model in one day of UTC."""

    tenant_id: str
    day: str = Field(description="The day on which the jobs ended.")
    model: str
    jobs: int = Field(description="Jobs that ended, however.")
    succeeded: int = Field(description="Those among them that succeeded.")
    input_tokens: int
    output_tokens: int


class QuotaUseDocument(Document):
    """What is spent of one quota."""

    unit: Literal["requests", "tokens"]
    per: Literal["day", "month"]
    begins: str = Field(description="The first day of the day or month that is meant.")
    limit: int
    spent: int = Field(description="By jobs that have ended.")
    held: int = Field(description="By open jobs, estimated.")


class UsageDocument(Document):
    """What was used, by tenant, day and model."""

    object: Literal["usage"]
    from_: str = Field(alias="from")
    to: str
    is_whole: bool = Field(description="False where there is more: ask for fewer days.")
    data: list[UsageRowDocument]
    quotas: list[QuotaUseDocument] | None = Field(
        None, description="Of the tenant, as they are now; absent in a report of all tenants."
    )


@ROUTES.declare(
    "GET",
    "/usage",
    "Read what you used",
    about="what the caller's tenant used, by day and model: `from`, `to`; and what is left of its quotas",
    scopes=(Scope.READ,),
    replies={200: Reply("What was used.", UsageDocument)},
    errors=(422,),
    parameters=_DAYS,
)
async def read_own_usage(edge: GatewayServices, caller: Caller, request: Request) -> Response:
    query = single(request.query_params.multi_items(), ("from", "to"))
    return await _answer(edge, caller, query, caller.tenant_id)


@OPERATOR_ROUTES.declare(
    "GET",
    "/usage",
    "Read what tenants used",
    about="what tenants used, by tenant, day and model: `tenant`, `from`, `to`",
    scopes=(Scope.OPERATOR,),
    replies={200: Reply("What was used.", UsageDocument)},
    errors=(404, 422),
    parameters=[in_query("tenant", TENANT_ID, "Only this tenant, with its quotas."), *_DAYS],
)
async def read_usage(edge: GatewayServices, caller: Caller, request: Request) -> Response:
    query = single(request.query_params.multi_items(), ("tenant", "from", "to"))
    tenant = tenant_in_query(query.get("tenant"))
    if tenant is not None:
        await edge.call(_check_known, edge.core().plane.store, tenant)
    return await _answer(edge, caller, query, tenant)


def _check_known(store: Store, tenant: TenantId) -> None:
    if store.read(tenant_of_id, tenant) is None:
        raise TenantNotFound(f"there is no tenant {tenant[:80]!r}: GET /v1/operator/tenants lists all")


async def _answer(
    edge: GatewayServices, caller: Caller, query: Mapping[str, str], tenant: TenantId | None
) -> Response:
    plane = edge.core().plane
    now_ms = plane.clock.now_ms()
    days = read_usage_days(query.get("from"), query.get("to"), now_ms)
    party = TenantId(caller.key_id)
    return await plane.list_reads.in_turn(
        party, lambda: edge.call(_written, plane.store, days, tenant, now_ms)
    )


def _written(store: Store, days: UsageDays, tenant: TenantId | None, now_ms: int) -> Response:
    """Read a report. It may be large: it is written on this thread."""
    report = store.read(usage_report, days, tenant, now_ms)
    return json_answer(usage_report_to_json(report))
