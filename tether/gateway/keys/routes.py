"""The routes of API keys: an admin's key makes, lists and revokes keys of its own tenant."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from tether.clocks import wall_clock_ms
from tether.errors import Forbidden, InvalidRequest, KeyNotFound, TenantNotFound, TetherError
from tether.gateway.acts import SMALL_BODY, act_of, log_of
from tether.gateway.keys.api_keys import KEY_ID, Scope, key_to_json, make_key
from tether.gateway.keys.documents import CreateKeyBody, KeyDocument, KeyListDocument, NewKeyDocument
from tether.gateway.keys.key_ring import Caller
from tether.gateway.responses import json_answer
from tether.gateway.routes import Reply, RoomRoutes
from tether.gateway.schemas import inlined
from tether.gateway.services import GatewayServices
from tether.ids import TenantId
from tether.store.api_keys import MAX_GOOD_KEYS, ApiKey, add_key, has_room_for_key, keys_of, revoke_key
from tether.store.tenants import tenant

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
    return await edge.call(answer_keys, edge, caller.tenant_id, without_scope=Scope.OPERATOR)


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
    async with edge.bodies.receive(request, caller.tenant_id, SMALL_BODY) as body:
        scopes, name = await body.read(read_key_wishes)
    if Scope.OPERATOR in scopes:
        raise Forbidden(
            "an admin's key gives scopes of its tenant alone: POST /v1/operator/keys, with an operator's key"
        )
    return await give_key(edge, caller, request, caller.tenant_id, scopes, name, is_limited=True)


@ROUTES.declare(
    "DELETE",
    "/keys/{key_id}",
    "Revoke an API key",
    about="revoke a key: it is good no longer",
    scopes=(Scope.ADMIN,),
    replies={200: Reply("The key is revoked; its open streams end within seconds.", KeyDocument)},
    errors=(404,),
)
async def revoke_one(edge: GatewayServices, caller: Caller, request: Request, key_id: str) -> Response:
    unknown = KeyNotFound(
        "there is no API key with this id, or it belongs to another tenant: GET /v1/keys lists yours"
    )
    if not KEY_ID.match(key_id):
        raise unknown
    now_ms = wall_clock_ms()

    def revoke(connection: Connection) -> ApiKey | KeyNotFound:
        without = Scope.OPERATOR
        return revoke_key(connection, key_id, caller.tenant_id, now_ms, without_scope=without) or unknown

    def is_revoked_now(answer: ApiKey | TetherError) -> bool:
        return isinstance(answer, ApiKey) and answer.revoked_at == now_ms

    act = act_of(caller, request, "keys.revoke", key_id, caller.tenant_id)
    revoked = await edge.call(log_of(edge).write, act, revoke, is_noted=is_revoked_now)
    return json_answer(key_to_json(revoked))


async def give_key(
    edge: GatewayServices,
    caller: Caller,
    request: Request,
    tenant_id: TenantId,
    scopes: Sequence[Scope],
    name: str,
    *,
    is_limited: bool = False,
) -> Response:
    """Make a key of a tenant, and answer with it.

    Args:
      is_limited: Whether the tenant may have only so many, as where its own admin makes them.

    Raises:
      TenantNotFound: There is no such tenant.
      InvalidRequest: It has as many keys as it may.
    """
    key, kept = make_key(tenant_id, scopes, name=name, now_ms=wall_clock_ms(), randomness=secrets.token_bytes)

    def keep(connection: Connection) -> TenantNotFound | InvalidRequest | None:
        if tenant(connection, tenant_id) is None:
            return TenantNotFound(f"there is no tenant {tenant_id[:80]!r}")
        if is_limited and not has_room_for_key(connection, tenant_id, without_scope=Scope.OPERATOR):
            return InvalidRequest(
                f"the tenant has {MAX_GOOD_KEYS} API keys, as many as it may: revoke those that are not in "
                "use (DELETE /v1/keys/{key_id})"
            )
        add_key(connection, kept)
        return None

    def is_noted(answer: TetherError | None) -> bool:
        return answer is None or not is_limited

    act = act_of(caller, request, "keys.create", kept.key_id, tenant_id, name=name, scopes=list(kept.scopes))
    await edge.call(log_of(edge).write, act, keep, is_noted=is_noted)
    return json_answer({**key_to_json(kept), "key": key}, 201)


def answer_keys(
    edge: GatewayServices, tenant_id: TenantId | None, *, without_scope: str | None = None
) -> Response:
    """A list of keys. It may be long: it is written on this thread. Blocks.

    Args:
      tenant_id, without_scope: See :func:`~tether.store.api_keys.keys_of`.
    """
    found = edge.core().plane.store.read(keys_of, tenant_id, without_scope=without_scope)
    return json_answer({"object": "list", "data": [key_to_json(key) for key in found]})


def read_key_wishes(values: Mapping[str, Any]) -> tuple[list[Scope], str]:
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
