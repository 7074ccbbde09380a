"""The routes of API keys: an admin's key makes, lists and revokes keys of its own tenant."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from tether.errors import InvalidRequest, KeyNotFound
from tether.gateway.answers import json_answer
from tether.gateway.api_keys import Scope, key_to_json, make_key
from tether.gateway.bodies import read_json
from tether.gateway.edge import Edge
from tether.gateway.openapi import CREATE_KEY, KEYS, REVOKE_KEY
from tether.scheduling.scheduler_middleware import now_ms
from tether.store.api_keys import ApiKey, add_key, keys_of, revoke_key

BODY_LIMIT = 4_096
MOST_SCOPES = 16


def key_routes(edge: Edge) -> APIRouter:
    """The routes under ``/v1/keys``."""
    router = APIRouter(prefix="/v1", tags=["keys"])

    @router.get("/keys", **KEYS)
    async def list_keys(request: Request) -> Response:
        caller = await edge.caller(request, Scope.ADMIN)
        found = await edge.call(edge.core().plane.store.read, keys_of, caller.tenant_id)
        return json_answer({"object": "list", "data": [key_to_json(key) for key in found]})

    @router.post("/keys", **CREATE_KEY)
    async def create_key(request: Request) -> Response:
        caller = await edge.caller(request, Scope.ADMIN)
        scopes, name = _read_wishes(await read_json(request, BODY_LIMIT))
        key, kept = make_key(
            caller.tenant_id, scopes, name=name, now_ms=now_ms(), randomness=secrets.token_bytes
        )
        await edge.call(_keep, edge, kept)
        return json_answer({**key_to_json(kept), "key": key}, 201)

    @router.delete("/keys/{key_id}", **REVOKE_KEY)
    async def revoke_one(request: Request, key_id: str) -> Response:
        caller = await edge.caller(request, Scope.ADMIN)
        found = await edge.call(_revoke, edge, key_id, caller.tenant_id)
        if found is None:
            raise KeyNotFound(
                "there is no API key with this id, or it is another tenant's: GET /v1/keys lists yours"
            )
        return json_answer(key_to_json(found))

    return router


def _keep(edge: Edge, kept: ApiKey) -> None:
    edge.core().plane.store.write_alone(add_key, kept).result()


def _revoke(edge: Edge, key_id: str, tenant_id: str) -> ApiKey | None:
    def revoke(connection: Connection) -> ApiKey | None:
        return revoke_key(connection, key_id, tenant_id, now_ms())

    return edge.core().plane.store.write_alone(revoke).result()


def _read_wishes(values: Mapping[str, Any]) -> tuple[list[Scope], str]:
    """The scopes and the name that a new key shall have."""
    scopes, name = values.get("scopes"), values.get("name", "")
    known = [scope.value for scope in Scope]
    if not {"scopes"} <= values.keys() <= {"scopes", "name"}:
        raise InvalidRequest('give "scopes", and a "name" if you like, and nothing else')
    if not isinstance(scopes, list) or not 1 <= len(scopes) <= MOST_SCOPES:
        raise InvalidRequest(f"scopes is not a list of some of: {', '.join(known)}")
    for scope in scopes:
        if scope not in known:
            raise InvalidRequest(f"scope {scope!r:.80} is not one of: {', '.join(known)}")
    if not isinstance(name, str):
        raise InvalidRequest(f"name is of type {type(name).__name__}, not text")
    return [Scope(scope) for scope in scopes], name
