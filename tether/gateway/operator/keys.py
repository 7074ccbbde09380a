"""The routes of API keys of all tenants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from tether.clocks import wall_clock_ms
from tether.errors import InvalidRequest, KeyNotFound
from tether.gateway.acts import SMALL_BODY, act_of, log_of
from tether.gateway.jobs.queries import single
from tether.gateway.keys.api_keys import KEY_ID, Scope, key_to_json
from tether.gateway.keys.documents import KeyDocument, KeyListDocument, NewKeyDocument
from tether.gateway.keys.key_ring import Caller
from tether.gateway.keys.routes import answer_keys, give_key, read_key_wishes
from tether.gateway.openapi import in_query
from tether.gateway.operator.documents import OPERATOR, TENANT_ID, CreateAnyKeyBody
from tether.gateway.operator.queries import TENANT, tenant_in_query
from tether.gateway.responses import json_answer
from tether.gateway.routes import Reply, RoomRoutes
from tether.gateway.schemas import inlined
from tether.gateway.services import GatewayServices
from tether.ids import TenantId
from tether.store.api_keys import ApiKey, owner_of_key, revoke_key

ROUTES = RoomRoutes("operator", prefix=OPERATOR)
"""The routes under ``/v1/operator/keys``."""

OF_TENANT = in_query("tenant", TENANT_ID, "Only this tenant's.")


@ROUTES.declare(
    "GET",
    "/keys",
    "List the API keys of all tenants",
    about="the keys of all tenants, or of one: `tenant`",
    scopes=(Scope.OPERATOR,),
    replies={200: Reply("The keys, oldest first.", KeyListDocument)},
    errors=(422,),
    parameters=[OF_TENANT],
)
async def list_all_keys(edge: GatewayServices, request: Request) -> Response:
    query = single(request.query_params.multi_items(), ("tenant",))
    of_whom = tenant_in_query(query.get("tenant"))
    return await edge.call(answer_keys, edge, of_whom)


@ROUTES.declare(
    "POST",
    "/keys",
    "Create an API key of any tenant",
    about="a new key of any tenant, with any scopes, which is shown only once",
    scopes=(Scope.OPERATOR,),
    replies={201: Reply("The key, shown only once.", NewKeyDocument)},
    errors=(400, 404, 408, 413, 422),
    body=inlined(CreateAnyKeyBody),
)
async def create_any_key(edge: GatewayServices, caller: Caller, request: Request) -> Response:
    async with edge.bodies.receive(request, caller.tenant_id, SMALL_BODY) as body:
        tenant_id, values = await body.read(_split)
    scopes, name = read_key_wishes(values)
    return await give_key(edge, caller, request, tenant_id, scopes, name)


@ROUTES.declare(
    "DELETE",
    "/keys/{key_id}",
    "Revoke an API key of any tenant",
    about="revoke a key of any tenant",
    scopes=(Scope.OPERATOR,),
    replies={200: Reply("The key is revoked; its open streams end within seconds.", KeyDocument)},
    errors=(404,),
)
async def revoke_any_key(edge: GatewayServices, caller: Caller, request: Request, key_id: str) -> Response:
    unknown = KeyNotFound("there is no API key with this id: GET /v1/operator/keys lists all")

    def revoke(connection: Connection) -> ApiKey | KeyNotFound:
        return revoke_key(connection, key_id, None, wall_clock_ms()) or unknown

    if not KEY_ID.match(key_id):
        raise unknown
    owner = await edge.call(edge.core().plane.store.read, owner_of_key, key_id)
    act = act_of(caller, request, "keys.revoke", key_id, owner)
    return json_answer(key_to_json(await edge.call(log_of(edge).write, act, revoke)))


def _split(values: Mapping[str, Any]) -> tuple[TenantId, Mapping[str, Any]]:
    """The tenant that a body names, and the rest of it."""
    tenant_id = values.get("tenant_id")
    if not isinstance(tenant_id, str):
        raise InvalidRequest('the body must have "tenant_id", the id of a tenant')
    if not TENANT.match(tenant_id):
        raise InvalidRequest(f"tenant_id={tenant_id[:80]!r} cannot be the id of a tenant")
    return TenantId(tenant_id), {name: value for name, value in values.items() if name != "tenant_id"}
