"""The routes of circuit breakers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from tether.core.breaker_control import BreakerControl
from tether.errors import InvalidRequest
from tether.gateway.acts import SMALL_BODY, act_of, log_of
from tether.gateway.keys.api_keys import Scope
from tether.gateway.keys.key_ring import Caller
from tether.gateway.operator.breaker_documents import (
    BreakerListDocument,
    BreakerResetDocument,
    ResetBreakerBody,
)
from tether.gateway.operator.documents import OPERATOR
from tether.gateway.responses import json_answer
from tether.gateway.routes import Reply, RoomRoutes
from tether.gateway.schemas import inlined
from tether.gateway.services import GatewayServices
from tether.store.audit import Act

ROUTES = RoomRoutes("operator", prefix=OPERATOR)
"""The routes under ``/v1/operator/breakers``."""


@ROUTES.declare(
    "GET",
    "/breakers",
    "List circuit breakers",
    about="the breakers of models that lately ran in a region, and all that are not closed",
    scopes=(Scope.OPERATOR,),
    replies={200: Reply("The breakers, by model and region.", BreakerListDocument)},
)
async def list_breakers(edge: GatewayServices, caller: Caller, request: Request) -> Response:
    return await _answered(edge, caller, request, lambda control: control.list_breakers())


@ROUTES.declare(
    "POST",
    "/breakers/reset",
    "Reset a circuit breaker",
    about="close the breaker of a model in a region, and forget its normal speed",
    details="Attempts that began before do not open it again. It counts everywhere within 2 seconds.",
    scopes=(Scope.OPERATOR,),
    replies={200: Reply("The breakers that were reset, as they were.", BreakerResetDocument)},
    errors=(400, 404, 408, 413, 422),
    body=inlined(ResetBreakerBody),
)
async def reset_breaker(edge: GatewayServices, caller: Caller, request: Request) -> Response:
    async with edge.bodies.receive(request, caller.tenant_id, SMALL_BODY) as body:
        model, region = await body.read(_read_names)
    return await _answered(edge, caller, request, lambda control: control.reset(model, region))


async def _answered(
    edge: GatewayServices,
    caller: Caller,
    request: Request,
    do: Callable[[BreakerControl], Mapping[str, Any]],
) -> Response:
    def act(action: str, target: str, details: Mapping[str, Any]) -> Act:
        return act_of(caller, request, action, target, **details)

    def carried_out() -> Response:
        plane = edge.core().plane
        control = BreakerControl(plane.breakers, plane.client, log_of(edge), act, plane.clock.now_ms)
        return json_answer(do(control))

    return await edge.call(carried_out)


def _read_names(values: Mapping[str, Any]) -> tuple[str, str]:
    if unknown := sorted(values.keys() - {"model", "region"}):
        raise InvalidRequest(f"unknown field {unknown[0][:80]!r}; available: model, region")
    model, region = values.get("model"), values.get("region")
    if not isinstance(model, str) or not isinstance(region, str):
        raise InvalidRequest("model and region must be texts")
    return model, region
