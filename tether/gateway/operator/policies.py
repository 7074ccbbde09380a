"""The routes of tenants' policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from tether.core.policy_control import PolicyControl
from tether.errors import InvalidRequest, TenantNotFound
from tether.gateway.acts import act_of
from tether.gateway.jobs.queries import single
from tether.gateway.keys.api_keys import Scope
from tether.gateway.keys.key_ring import Caller
from tether.gateway.openapi import in_query
from tether.gateway.operator.documents import OPERATOR
from tether.gateway.operator.policy_documents import PolicyDocument, SetPolicyBody, SetPolicyDocument
from tether.gateway.operator.queries import TENANT
from tether.gateway.receiving import BodyLimit
from tether.gateway.responses import json_answer
from tether.gateway.routes import Reply, RoomRoutes
from tether.gateway.schemas import inlined
from tether.gateway.services import GatewayServices
from tether.ids import TenantId
from tether.policies.document import MAX_POLICY_BYTES, Policy
from tether.policies.reading import read_policy
from tether.store.audit import Act

ROUTES = RoomRoutes("operator", prefix=OPERATOR)
"""The routes under ``/v1/operator/tenants/{tenant_id}/policy``."""

MAX_POLICY_VERSION = 2**31 - 1

_BODY = BodyLimit(2 * MAX_POLICY_BYTES)
"""The document, written with spaces and escapes."""

_VERSION = {"type": "integer", "minimum": 1, "maximum": MAX_POLICY_VERSION}


class _Wanted(NamedTuple):
    policy: Policy
    if_version: int | None
    dry_run: bool


@ROUTES.declare(
    "GET",
    "/tenants/{tenant_id}/policy",
    "Show a tenant's policy",
    about="what a tenant may do: the newest version of its policy, or the one in `version`",
    details="Where none was ever set, it is version 0, an empty document, which allows everything.",
    scopes=(Scope.OPERATOR,),
    replies={200: Reply("The policy.", PolicyDocument)},
    errors=(404, 422),
    parameters=[in_query("version", _VERSION, "This version, and not the newest one.")],
)
async def show_policy(edge: GatewayServices, caller: Caller, request: Request, tenant_id: str) -> Response:
    query = single(request.query_params.multi_items(), ("version",))
    version = _version_in(query.get("version"))
    return await _answered(
        edge, caller, request, tenant_id, lambda control, tenant: control.show(tenant, version)
    )


@ROUTES.declare(
    "POST",
    "/tenants/{tenant_id}/policy",
    "Set a tenant's policy",
    about="set what a tenant may do: the document becomes the next version of its policy",
    details="All problems of a document are told at once. It counts everywhere within 2 seconds, for what is "
    "submitted or placed from then on. With `dry_run` it is only validated and compared.",
    scopes=(Scope.OPERATOR,),
    replies={200: Reply("The policy as it is now, and what has changed.", SetPolicyDocument)},
    errors=(400, 404, 408, 409, 413, 422),
    body=inlined(SetPolicyBody),
)
async def set_tenant_policy(
    edge: GatewayServices, caller: Caller, request: Request, tenant_id: str
) -> Response:
    async with edge.bodies.receive(request, caller.tenant_id, _BODY) as body:
        wanted = await body.read(_read_wanted)

    def do(control: PolicyControl, tenant: TenantId) -> Mapping[str, Any]:
        if not wanted.dry_run:
            return control.set(tenant, wanted.policy, wanted.if_version)
        return {**control.show(tenant), **control.diff(tenant, wanted.policy), "object": "policy"}

    return await _answered(edge, caller, request, tenant_id, do)


async def _answered(
    edge: GatewayServices,
    caller: Caller,
    request: Request,
    tenant_id: str,
    do: Callable[[PolicyControl, TenantId], Mapping[str, Any]],
) -> Response:
    if not TENANT.match(tenant_id):
        raise TenantNotFound(f"there is no tenant {tenant_id[:80]!r}: GET /v1/operator/tenants lists all")

    def act(action: str, target: str, tenant: TenantId, details: Mapping[str, Any]) -> Act:
        return act_of(caller, request, action, target, tenant, **details)

    plane = edge.core().plane
    control = PolicyControl(plane.store, act, plane.clock.now_ms)
    return json_answer(await edge.call(partial(do, control, TenantId(tenant_id))))


def _version_in(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:20]) <= MAX_POLICY_VERSION):
        raise InvalidRequest(f"version={text[:80]!r} must be an integer from 1 to {MAX_POLICY_VERSION}")
    return int(text)


def _read_wanted(values: Mapping[str, Any]) -> _Wanted:
    known = ("document", "if_version", "dry_run")
    if unknown := sorted(values.keys() - set(known)):
        raise InvalidRequest(f"unknown field {unknown[0][:80]!r}; available: {', '.join(known)}")
    if "document" not in values:
        raise InvalidRequest('the body must have "document", the policy')
    if_version, dry_run = values.get("if_version"), values.get("dry_run", False)
    # In JSON 3.0 is an integer.
    if isinstance(if_version, float) and if_version.is_integer():
        if_version = int(if_version)
    if if_version is not None and (type(if_version) is not int or not 0 <= if_version <= MAX_POLICY_VERSION):
        raise InvalidRequest(f"if_version must be an integer from 0 to {MAX_POLICY_VERSION}, or null")
    if not isinstance(dry_run, bool):
        raise InvalidRequest("dry_run must be true or false")
    return _Wanted(read_policy(values["document"]), if_version, dry_run)
