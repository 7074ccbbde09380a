"""The route of the audit log."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from tether.errors import InvalidRequest
from tether.gateway.jobs.queries import single
from tether.gateway.keys.api_keys import Scope
from tether.gateway.keys.key_ring import Caller
from tether.gateway.openapi import in_query
from tether.gateway.operator.documents import OPERATOR, TENANT_ID, AuditPageDocument
from tether.gateway.operator.queries import tenant_in_query
from tether.gateway.responses import json_answer
from tether.gateway.routes import Reply, RoomRoutes
from tether.gateway.services import GatewayServices
from tether.ids import TenantId
from tether.requests.rules import PRINTABLE
from tether.store.audit import ACTIONS, SUBJECTS
from tether.store.audit_pages import (
    MAX_ENTRIES_PER_PAGE,
    AuditPage,
    audit_page,
    audit_page_to_json,
    check_action,
    read_audit_place,
)
from tether.store.store import Store

ROUTES = RoomRoutes("operator", prefix=OPERATOR)
"""The route ``/v1/operator/audit``."""

_TEXT = {"type": "string", "maxLength": 200, "pattern": PRINTABLE}
_ACTION = {"type": "string", "enum": [*ACTIONS, *SUBJECTS]}
_ENTRIES_PER_PAGE = 50


@ROUTES.declare(
    "GET",
    "/audit",
    "Read the audit log",
    about="the audit log, newest first: `actor`, `action`, `target`, `tenant`, `limit`, `cursor`",
    details="All filters that are given must match; `action=keys` is every act on API keys.",
    scopes=(Scope.OPERATOR,),
    replies={200: Reply("A page of the log.", AuditPageDocument)},
    errors=(422,),
    parameters=[
        in_query("actor", _TEXT, "Only acts by this API key, or of this user of the command line."),
        in_query(
            "action",
            {"type": "string", "enum": [*ACTIONS, *SUBJECTS]},
            "Only this act, or acts on this: `keys.create`, `keys`.",
        ),
        in_query("target", _TEXT, "Only acts on what has this id."),
        in_query("tenant", TENANT_ID, "Only acts that concern this tenant."),
        in_query(
            "limit",
            {
                "type": "integer",
                "minimum": 1,
                "maximum": MAX_ENTRIES_PER_PAGE,
                "default": _ENTRIES_PER_PAGE,
            },
            "Maximum number of entries on the page.",
        ),
        in_query(
            "cursor", {"type": "string", "pattern": "^[0-9]{1,15}$"}, "next_cursor of the previous page."
        ),
    ],
)
async def read_audit_log(edge: GatewayServices, caller: Caller, request: Request) -> Response:
    known = ("actor", "action", "target", "tenant", "limit", "cursor")
    query = single(request.query_params.multi_items(), known)
    limit, before = read_audit_place(query.get("limit", str(_ENTRIES_PER_PAGE)), query.get("cursor"))
    if any("\0" in value for value in query.values()):
        raise InvalidRequest("a filter cannot contain a zero byte")
    if "action" in query:
        check_action(query["action"])
    read = partial(
        audit_page,
        before=before,
        limit=limit,
        actor=query.get("actor"),
        action=query.get("action"),
        target=query.get("target"),
        tenant_id=tenant_in_query(query.get("tenant")),
    )
    # Filters that little passes together look at much of a log, which may be long.
    turns, party = edge.core().plane.list_reads, TenantId(caller.key_id)
    return await turns.in_turn(party, lambda: edge.call(_answer, edge.core().plane.store, read))


def _answer(store: Store, read: Callable[[Connection], AuditPage]) -> Response:
    """Find a page. It may be large: it is written on this thread."""
    return json_answer(audit_page_to_json(store.read(read)))
