"""The routes of API keys: an admin's key makes, lists and revokes keys of its own tenant."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from tether.clocks import wall_clock_ms
from tether.errors import InvalidRequest, KeyNotFound
from tether.gateway.keys.api_keys import Scope, key_to_json, make_key
from tether.gateway.keys.documents import CreateKeyBody, KeyDocument, KeyListDocument, NewKeyDocument
from tether.gateway.keys.key_ring import Caller
from tether.gateway.receiving import BodyLimit
from tether.gateway.responses import json_answer
from tether.gateway.routes import Reply, RoomRoutes
from tether.gateway.schemas import inlined
from tether.gateway.services import GatewayServices
from tether.ids import TenantId
from tether.store.api_keys import ApiKey, add_key, keys_of, revoke_key

_BODY_LIMIT = BodyLimit(4_096)
MAX_SCOPES = 16


ROUTES = RoomRoutes("keys")
"""The routes under ``/v1/keys``."""


@ROUTES.declare(
    "GET",
    "/keys",
    "List API keys",
    about="the tenant's own keys",
    scopes=(Scope.ADMIN,),
    replies={200: Reply("The keys of the tenant.", KeyListDocument)},
)
async def list_keys(edge: GatewayServices, caller: Caller) -> Response:
    found = await edge.call(edge.core().plane.store.read, keys_of, caller.tenant_id)
    return json_answer({"object": "list", "data": [key_to_json(key) for key in found]})


@ROUTES.declare(
    "POST",
    "/keys",
    "Create an API key",
    about="a new key, which is shown only once",
    scopes=(Scope.ADMIN,),
    replies={201: Reply("The key, shown only once.", NewKeyDocument)},
    errors=(400, 408, 413, 422),
    body=inlined(CreateKeyBody),
)
async def create_key(edge: GatewayServices, caller: Caller, request: Request) -> Response:
    async with edge.bodies.receive(request, caller.tenant_id, _BODY_LIMIT) as body:
        scopes, name = await body.read(_read_wishes)
    key, kept = make_key(
        caller.tenant_id, scopes, name=name, now_ms=wall_clock_ms(), randomness=secrets.token_bytes
    )
    await edge.call(_keep, edge, kept)
    return json_answer({**key_to_json(kept), "key": key}, 201)


@ROUTES.declare(
    "DELETE",
    "/keys/{key_id}",
    "Revoke an API key",
    about="revoke a key: it is good no longer",
    scopes=(Scope.ADMIN,),
    replies={200: Reply("The key is revoked; its open streams end within seconds.", KeyDocument)},
    errors=(404,),
)
async def revoke_one(edge: GatewayServices, caller: Caller, key_id: str) -> Response:
    key = await edge.call(_revoke, edge, key_id, caller.tenant_id)
    if key is None:
        raise KeyNotFound(
            "there is no API key with this id, or it belongs to another tenant: GET /v1/keys lists yours"
        )
    return json_answer(key_to_json(key))


def _keep(edge: GatewayServices, kept: ApiKey) -> None:
    edge.core().plane.store.write_alone(add_key, kept).result()


def _revoke(edge: GatewayServices, key_id: str, tenant_id: TenantId) -> ApiKey | None:
    def revoke(connection: Connection) -> ApiKey | None:
        return revoke_key(connection, key_id, tenant_id, wall_clock_ms())

    return edge.core().plane.store.write_alone(revoke).result()


def _read_wishes(values: Mapping[str, Any]) -> tuple[list[Scope], str]:
    """The scopes and the name that a new key shall have."""
    scopes, name = values.get("scopes"), values.get("name", "")
    known = [scope.value for scope in Scope]
    if not {"scopes"} <= values.keys() <= {"scopes", "name"}:
        raise InvalidRequest('the body must have "scopes" and optionally "name", and nothing else')
    if not isinstance(scopes, list) or not 1 <= len(scopes) <= MAX_SCOPES:
        raise InvalidRequest(f"scopes must be a list of: {', '.join(known)}")
    for scope in scopes:
        if scope not in known:
            raise InvalidRequest(f"scope {scope!r:.80} is not one of: {', '.join(known)}")
    if not isinstance(name, str):
        raise InvalidRequest(f"name is of type {type(name).__name__}, not a string")
    return [Scope(scope) for scope in scopes], name
