"""The routes of workers' keys: which are trusted, and which were revoked."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import redis
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from tether.core.last_workers import LastWorkerPool
from tether.core.pool_backlogs import last_worker_pools, owed_jobs, waiting_jobs
from tether.discovery.announcements.presence import worker_id
from tether.discovery.trust.worker_keys import known_keys, meant_key, public_key
from tether.errors import InvalidRequest
from tether.gateway.acts import SMALL_BODY, act_of, log_of
from tether.gateway.keys.api_keys import Scope
from tether.gateway.keys.key_ring import Caller
from tether.gateway.operator.documents import (
    OPERATOR,
    FleetKeyDocument,
    FleetKeyListDocument,
    RevokedKeyDocument,
    TrustKeyBody,
)
from tether.gateway.responses import json_answer
from tether.gateway.routes import Reply, RoomRoutes
from tether.gateway.schemas import inlined
from tether.gateway.services import GatewayServices
from tether.store.fleet_keys import FleetKey, all_fleet_keys, check_worker_name, enrol, revoke

ROUTES = RoomRoutes("operator", prefix=OPERATOR)
"""The routes under ``/v1/operator/worker-keys``."""


class _Wish(NamedTuple):
    pub_key: str
    name: str | None
    again: bool


@ROUTES.declare(
    "GET",
    "/worker-keys",
    "List workers' keys",
    about="the enrolled and revoked keys of workers",
    scopes=(Scope.OPERATOR,),
    replies={200: Reply("The keys, oldest first.", FleetKeyListDocument)},
)
async def list_worker_keys(edge: GatewayServices) -> Response:
    found = await edge.call(edge.core().plane.store.read, all_fleet_keys)
    return json_answer({"object": "list", "data": [_document(key) for key in found]})


@ROUTES.declare(
    "POST",
    "/worker-keys",
    "Trust a worker's key",
    about="trust a worker's key: `again` takes a revocation back",
    scopes=(Scope.OPERATOR,),
    replies={200: Reply("The key. It counts everywhere within 2 seconds.", FleetKeyDocument)},
    errors=(400, 408, 413, 422),
    body=inlined(TrustKeyBody),
)
async def trust_worker_key(edge: GatewayServices, caller: Caller, request: Request) -> Response:
    async with edge.bodies.receive(request, caller.tenant_id, SMALL_BODY) as body:
        wish = await body.read(_read_wish)
    return await edge.call(_trust, edge, caller, request, wish)


@ROUTES.declare(
    "DELETE",
    "/worker-keys/{worker}",
    "Revoke a worker's key",
    about="revoke a worker's key, by its id, public key or unique name: its jobs continue on others",
    scopes=(Scope.OPERATOR,),
    replies={200: Reply("The key. It is rejected everywhere within 2 seconds.", RevokedKeyDocument)},
    errors=(404, 422),
)
async def revoke_worker_key(edge: GatewayServices, caller: Caller, request: Request, worker: str) -> Response:
    return await edge.call(_revoke, edge, caller, request, worker)


def _trust(edge: GatewayServices, caller: Caller, request: Request, wish: _Wish) -> Response:
    plane = edge.core().plane
    names = {key.pub_key: key.name for key in plane.store.read(all_fleet_keys)}
    pub_key = public_key(wish.pub_key, known_keys(edge.settings, names), reads_files=False)

    def trust(connection: Connection) -> FleetKey | InvalidRequest:
        now_ms = plane.clock.now_ms()
        enrolled = enrol(connection, pub_key, wish.name, now_ms, lifts_revocation=wish.again)
        if enrolled.revoked_at is None:
            return enrolled
        return InvalidRequest(
            f"the key of worker {enrolled.worker_id} was revoked: trust it with again: true"
        )

    worker = worker_id(pub_key)
    act = act_of(caller, request, "fleet.trust", worker, pub_key=pub_key, name=wish.name, again=wish.again)
    return json_answer(_document(log_of(edge).write(act, trust)))


def _revoke(edge: GatewayServices, caller: Caller, request: Request, worker: str) -> Response:
    plane = edge.core().plane
    names = {key.pub_key: key.name for key in plane.store.read(all_fleet_keys)}
    pub_key = meant_key(worker, known_keys(edge.settings, names), reads_files=False)
    act = act_of(caller, request, "fleet.revoke", worker_id(pub_key), pub_key=pub_key)
    last: Sequence[LastWorkerPool] = ()
    # A key is revoked whether Redis tells what waits or not.
    with contextlib.suppress(redis.RedisError):
        fleet, waiting = plane.fleet.fleet, Counter(waiting_jobs(plane.client, plane.keys))
        if (member := fleet.members.get(worker_id(pub_key))) is not None:
            waiting += Counter(owed_jobs(plane.store, [pool for pool, _ in member.serves]))
        last = last_worker_pools(fleet, worker_id(pub_key), waiting)
    revoked = log_of(edge).write(act, lambda connection: revoke(connection, pub_key, plane.clock.now_ms()))
    return json_answer({**_document(revoked), "last_of": [vars(one) for one in last]})


def _document(key: FleetKey) -> dict[str, Any]:
    return {"object": "fleet_key", **vars(key)}


def _read_wish(values: Mapping[str, Any]) -> _Wish:
    if not {"pub_key"} <= values.keys() <= {"pub_key", "name", "again"}:
        raise InvalidRequest('the body must have "pub_key", optionally "name" and "again", and nothing else')
    pub_key, again = values["pub_key"], values.get("again", False)
    name = check_worker_name(values.get("name"))
    if not isinstance(pub_key, str):
        raise InvalidRequest("pub_key must be a string")
    if not isinstance(again, bool):
        raise InvalidRequest("again must be true or false")
    return _Wish(pub_key, name, again)
