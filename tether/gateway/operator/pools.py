"""The routes of pools: those that there are, and what operators do to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from tether.clocks import monotonic_ms
from tether.core.pool_changes import MAX_JOBS_PER_CALL
from tether.core.pool_control import PoolControl, PoolSources
from tether.discovery.announcements.presence import worker_id
from tether.discovery.fleet.fleet_view import FleetView
from tether.errors import InvalidRequest
from tether.gateway.acts import SMALL_BODY, act_of
from tether.gateway.keys.api_keys import Scope
from tether.gateway.keys.key_ring import Caller
from tether.gateway.operator.documents import OPERATOR
from tether.gateway.operator.fleet_reads import fleet_turn, whole_fleet
from tether.gateway.operator.pool_documents import (
    MovePoolBody,
    PausePoolBody,
    PoolListDocument,
    PoolMoveDocument,
    PoolPauseDocument,
    PoolPurgeDocument,
    PurgePoolBody,
    WholePoolDocument,
)
from tether.gateway.responses import json_answer
from tether.gateway.routes import Reply, RoomRoutes
from tether.gateway.schemas import inlined
from tether.gateway.services import GatewayServices
from tether.store.audit import Act
from tether.store.fleet_keys import all_fleet_keys
from tether.store.pool_pauses import check_reason

ROUTES = RoomRoutes("operator", prefix=OPERATOR)
"""The routes under ``/v1/operator/pools``."""


class _Move(NamedTuple):
    to: str | None
    park: bool
    limit: int


@ROUTES.declare(
    "GET",
    "/pools",
    "List pools",
    about="the pools that workers announce, that have jobs or that are paused, each with its state",
    scopes=(Scope.OPERATOR,),
    replies={200: Reply("The pools, by name.", PoolListDocument)},
)
async def list_pools(edge: GatewayServices, caller: Caller, request: Request) -> Response:
    return await _answered(edge, caller, request, lambda control: control.list_pools())


@ROUTES.declare(
    "GET",
    "/pools/{pool}",
    "Show a pool",
    about="a pool with its workers, and what waits there of each class",
    scopes=(Scope.OPERATOR,),
    replies={200: Reply("The pool.", WholePoolDocument)},
    errors=(404,),
)
async def show_pool(edge: GatewayServices, caller: Caller, request: Request, pool: str) -> Response:
    return await _answered(edge, caller, request, lambda control: control.show(pool))


@ROUTES.declare(
    "POST",
    "/pools/{pool}/pause",
    "Pause a pool",
    about="let a pool get no jobs, and its workers draw none from it, until it is resumed",
    details="What runs there goes on. What waits there stays, until the pool is resumed or the jobs are "
    "moved. A pool that is paused gets the new reason, and stays paused since then.",
    scopes=(Scope.OPERATOR,),
    replies={200: Reply("The pause. It counts everywhere within 2 seconds.", PoolPauseDocument)},
    errors=(400, 404, 408, 413, 422),
    body=inlined(PausePoolBody),
)
async def pause_named_pool(edge: GatewayServices, caller: Caller, request: Request, pool: str) -> Response:
    async with edge.bodies.receive(request, caller.tenant_id, SMALL_BODY) as body:
        reason = await body.read(_read_reason)
    return await _answered(edge, caller, request, lambda control: control.pause(pool, reason))


@ROUTES.declare(
    "POST",
    "/pools/{pool}/resume",
    "Resume a pool",
    about="let a pool get jobs again, and its workers draw from it; one that is not paused stays as it is",
    scopes=(Scope.OPERATOR,),
    replies={200: Reply("That it is not paused. It counts everywhere within 2 seconds.", PoolPauseDocument)},
    errors=(404,),
)
async def resume_named_pool(edge: GatewayServices, caller: Caller, request: Request, pool: str) -> Response:
    return await _answered(edge, caller, request, lambda control: control.resume(pool))


@ROUTES.declare(
    "POST",
    "/pools/{pool}/move",
    "Move jobs out of a pool",
    about="place some of what waits in a pool elsewhere; what runs stays",
    details="Repeat it while `has_more` is true; where `jobs` is 0 then, what was moved before is not "
    "settled yet: wait a moment. Jobs that the pool in `to` cannot serve go to any other that can. Where no "
    "other pool can serve the model, it is refused with 409 unless `park` is true.",
    scopes=(Scope.OPERATOR,),
    replies={200: Reply("How many jobs were given back, to be placed again.", PoolMoveDocument)},
    errors=(400, 404, 408, 409, 413, 422),
    body=inlined(MovePoolBody),
)
async def move_pool(edge: GatewayServices, caller: Caller, request: Request, pool: str) -> Response:
    async with edge.bodies.receive(request, caller.tenant_id, SMALL_BODY) as body:
        move = await body.read(_read_move)
    return await _answered(
        edge, caller, request, lambda control: control.move(pool, move.to, move.limit, parks=move.park)
    )


@ROUTES.declare(
    "POST",
    "/pools/{pool}/purge",
    "Cancel the jobs that wait in a pool",
    about="cancel some of what waits in a pool; what runs goes on",
    details="Repeat it while `has_more` is true; where `jobs` is 0 then, what was cancelled before is not "
    "settled yet: wait a moment.",
    scopes=(Scope.OPERATOR,),
    replies={200: Reply("How many jobs were cancelled.", PoolPurgeDocument)},
    errors=(400, 404, 408, 413, 422),
    body=inlined(PurgePoolBody),
)
async def purge_pool(edge: GatewayServices, caller: Caller, request: Request, pool: str) -> Response:
    async with edge.bodies.receive(request, caller.tenant_id, SMALL_BODY) as body:
        limit = await body.read(_read_limit)
    return await _answered(edge, caller, request, lambda control: control.purge(pool, limit))


async def _answered(
    edge: GatewayServices, caller: Caller, request: Request, do: Callable[[PoolControl], Mapping[str, Any]]
) -> Response:
    def act(action: str, target: str, details: Mapping[str, Any]) -> Act:
        return act_of(caller, request, action, target, **details)

    return await edge.call(partial(_carried_out, edge, act, do))


def _carried_out(
    edge: GatewayServices,
    act: Callable[[str, str, Mapping[str, Any]], Act],
    do: Callable[[PoolControl], Mapping[str, Any]],
) -> Response:
    plane = edge.core().plane
    with _view(edge) as view:
        sources = PoolSources(
            store=plane.store,
            pools=plane.pools,
            view=view,
            registry=plane.registry,
            ending=plane.ending,
            names=lambda: {
                worker_id(key.pub_key): key.name for key in plane.store.read(all_fleet_keys) if key.name
            },
            now=monotonic_ms,
            now_ms=plane.clock.now_ms,
            shut=plane.breakers.told,
        )
        return json_answer(do(PoolControl(sources, act)))


@contextmanager
def _view(edge: GatewayServices) -> Iterator[FleetView]:
    """The gateway's own view of the fleet; the whole fleet where it follows only some models."""
    if not edge.settings.presence.models:
        with fleet_turn(edge):
            yield edge.core().plane.fleet
        return
    with whole_fleet(edge) as reading:
        yield reading.view


def _read_reason(values: Mapping[str, Any]) -> str:
    _check_known(values, ("reason",))
    return check_reason(values.get("reason"))


def _read_move(values: Mapping[str, Any]) -> _Move:
    _check_known(values, ("to", "park", "limit"))
    to, park = values.get("to"), values.get("park", False)
    if not isinstance(to, str | None):
        raise InvalidRequest("to must be the name of a pool, or null for any")
    if not isinstance(park, bool):
        raise InvalidRequest("park must be true or false")
    return _Move(to, park, _limit(values))


def _read_limit(values: Mapping[str, Any]) -> int:
    _check_known(values, ("limit",))
    return _limit(values)


def _limit(values: Mapping[str, Any]) -> int:
    limit = values.get("limit", MAX_JOBS_PER_CALL)
    # In JSON 3.0 is an integer.
    if isinstance(limit, float) and limit.is_integer():
        limit = int(limit)
    if type(limit) is not int or not 1 <= limit <= MAX_JOBS_PER_CALL:
        raise InvalidRequest(f"limit must be an integer from 1 to {MAX_JOBS_PER_CALL}")
    return limit


def _check_known(values: Mapping[str, Any], known: tuple[str, ...]) -> None:
    if unknown := sorted(values.keys() - set(known)):
        raise InvalidRequest(f"unknown field {unknown[0][:80]!r}; available: {', '.join(known)}")
