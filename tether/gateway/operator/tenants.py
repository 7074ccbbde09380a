"""The routes of tenants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from tether.errors import InvalidRequest, TenantNotFound
from tether.gateway.acts import SMALL_BODY, act_of, log_of
from tether.gateway.keys.api_keys import Scope
from tether.gateway.keys.key_ring import Caller
from tether.gateway.operator.documents import (
    OPERATOR,
    CreateTenantBody,
    SetTenantBody,
    TenantDocument,
    TenantListDocument,
)
from tether.gateway.operator.queries import TENANT
from tether.gateway.responses import json_answer
from tether.gateway.routes import Reply, RoomRoutes
from tether.gateway.schemas import inlined
from tether.gateway.services import GatewayServices
from tether.ids import TenantId
from tether.store.tenants import Tenant, TenantValues, all_tenants, change_tenant, check_tenant, create_tenant

ROUTES = RoomRoutes("operator", prefix=OPERATOR)
"""The routes under ``/v1/operator/tenants``."""

_VALUES = ("name", "weight", "quota")


@ROUTES.declare(
    "GET",
    "/tenants",
    "List tenants",
    about="all tenants, with their weights and quotas",
    scopes=(Scope.OPERATOR,),
    replies={200: Reply("All tenants, by id.", TenantListDocument)},
)
async def list_tenants(edge: GatewayServices) -> Response:
    found = await edge.call(edge.core().plane.store.read, all_tenants)
    return json_answer({"object": "list", "data": [_document(each) for each in found]})


@ROUTES.declare(
    "POST",
    "/tenants",
    "Create a tenant",
    about="a new tenant",
    scopes=(Scope.OPERATOR,),
    replies={201: Reply("The tenant.", TenantDocument)},
    errors=(400, 408, 413, 422),
    body=inlined(CreateTenantBody),
)
async def create_new_tenant(edge: GatewayServices, caller: Caller, request: Request) -> Response:
    async with edge.bodies.receive(request, caller.tenant_id, SMALL_BODY) as body:
        tenant_id, values = await body.read(_read_new)
    check_tenant(tenant_id, values)
    made = Tenant(
        tenant_id,
        values.get("name", tenant_id),
        values.get("weight", 1.0),
        values.get("quota"),
        edge.core().plane.clock.now_ms(),
    )
    exists = InvalidRequest(f"tenant {tenant_id!r} already exists: PATCH /v1/operator/tenants/{tenant_id}")

    def create(connection: Connection) -> InvalidRequest | None:
        return None if create_tenant(connection, made) else exists

    await edge.call(
        log_of(edge).write, act_of(caller, request, "tenants.create", tenant_id, tenant_id, **values), create
    )
    return json_answer(_document(made), 201)


@ROUTES.declare(
    "PATCH",
    "/tenants/{tenant_id}",
    "Change a tenant",
    about="change a tenant's name, weight or quota",
    scopes=(Scope.OPERATOR,),
    replies={200: Reply("The tenant as it is now.", TenantDocument)},
    errors=(400, 404, 408, 413, 422),
    body=inlined(SetTenantBody),
)
async def set_tenant(edge: GatewayServices, caller: Caller, request: Request, tenant_id: str) -> Response:
    async with edge.bodies.receive(request, caller.tenant_id, SMALL_BODY) as body:
        values = await body.read(_read_values)
    if not values:
        raise InvalidRequest(f"there is nothing to change: give one or more of {', '.join(_VALUES)}")
    changed_id = TenantId(tenant_id)
    unknown = TenantNotFound(f"there is no tenant {tenant_id[:80]!r}: GET /v1/operator/tenants lists all")
    if not TENANT.match(tenant_id):
        raise unknown

    def change(connection: Connection) -> Tenant | TenantNotFound:
        return change_tenant(connection, changed_id, values) or unknown

    check_tenant(TenantId("any"), values)
    act = act_of(caller, request, "tenants.set", tenant_id, changed_id, **values)
    return json_answer(_document(await edge.call(log_of(edge).write, act, change)))


def _document(each: Tenant) -> dict[str, Any]:
    return {"object": "tenant", **asdict(each)}


def _read_new(values: Mapping[str, Any]) -> tuple[TenantId, TenantValues]:
    tenant_id = values.get("tenant_id")
    if not isinstance(tenant_id, str):
        raise InvalidRequest('the body must have "tenant_id", a text')
    return TenantId(tenant_id), _read_values({k: v for k, v in values.items() if k != "tenant_id"})


def _read_values(values: Mapping[str, Any]) -> TenantValues:
    read: TenantValues = {}
    if unknown := sorted(values.keys() - set(_VALUES)):
        raise InvalidRequest(f"unknown field {unknown[0][:80]!r}; available: {', '.join(_VALUES)}")
    if "name" in values:
        if not isinstance(values["name"], str):
            raise InvalidRequest("name must be a string")
        read["name"] = values["name"]
    if "weight" in values:
        if type(values["weight"]) not in (int, float):
            raise InvalidRequest("weight must be a number")
        read["weight"] = float(values["weight"])
    if "quota" in values:
        read["quota"] = _quota(values["quota"])
    return read


def _quota(value: object) -> int | None:
    # In JSON 3.0 is an integer.
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value is not None and type(value) is not int:
        raise InvalidRequest("quota must be an integer, or null for none")
    return value
