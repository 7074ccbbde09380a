"""The routes of changes of many jobs, declared once for tenants and once for operators."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from tether.client.change_calls import where_document
from tether.client.change_documents import changes_to_json
from tether.core.direct.job_changes import DirectChangePort
from tether.gateway.acts import act_of, log_of
from tether.gateway.job_changes import documents
from tether.gateway.job_changes.queries import ChangeQuery, read_change
from tether.gateway.keys.api_keys import Scope
from tether.gateway.keys.key_ring import Caller
from tether.gateway.operator.documents import OPERATOR
from tether.gateway.receiving import BodyLimit
from tether.gateway.responses import json_answer
from tether.gateway.routes import Reply, RoomRoutes
from tether.gateway.schemas import inlined
from tether.gateway.services import GatewayServices
from tether.ids import TenantId
from tether.job_changes import JobChanges
from tether.store.audit import Act

_BODY_LIMIT = BodyLimit(65_536)
"""Of a request that says which jobs: labels may be many."""


def _declare(routes: RoomRoutes, whose: str) -> None:
    """Declare all routes of one side."""
    is_operator = routes.prefix == OPERATOR

    def port_of(edge: GatewayServices, caller: Caller) -> DirectChangePort:
        return edge.core().backend.every_change_port if is_operator else edge.backend(caller).change_port

    @routes.declare(
        "POST",
        "/jobs:cancel-where",
        f"Cancel jobs{whose} that match",
        about=f"cancel a batch of jobs{whose} that match and have not ended; each has its own result",
        details="One that cannot be cancelled stops no other. Go on with `next_cursor` as `cursor`, and the "
        "same `where`, until there is none: a batch may hold fewer jobs than its limit, or none. Newest "
        "jobs come first. With `dry_run` nothing is cancelled: the answer is which jobs it would be.",
        scopes=(Scope.OPERATOR if is_operator else Scope.SUBMIT,),
        replies={200: Reply("What came of each.", documents.JobChangesDocument)},
        errors=(400, 408, 413, 422),
        body=inlined(documents.CancelJobsBody),
    )
    async def cancel_jobs(edge: GatewayServices, caller: Caller, request: Request) -> Response:
        async with edge.bodies.receive(request, caller.tenant_id, _BODY_LIMIT) as body:
            query = await body.read(read_change)
        port = port_of(edge, caller)

        def change() -> JobChanges:
            return port.cancel_in_turn(query.job_filter, query.dry_run, query.cursor, query.limit)

        def carry_out() -> Response:
            if is_operator and not query.dry_run:
                act = _act(caller, request, "jobs.cancel_where", query)
                return _answer(log_of(edge).elsewhere(act, change))
            return _answer(change())

        # A key of its own is an operator's party among those that wait for lists.
        party = TenantId(caller.key_id) if is_operator else caller.tenant_id
        turns = edge.core().plane.list_reads
        return await turns.in_turn(party, lambda: edge.call(carry_out))


def _act(caller: Caller, request: Request, action: str, query: ChangeQuery, **details: str) -> Act:
    where = where_document(query.job_filter)
    return act_of(caller, request, action, "jobs", query.job_filter.tenant_id, **where, **details)


def _answer(batch: JobChanges) -> Response:
    return json_answer(changes_to_json(batch))


ROUTES = RoomRoutes("jobs")
"""The routes under ``/v1/jobs`` of many jobs at once."""

OPERATOR_ROUTES = RoomRoutes("operator", prefix=OPERATOR)
"""The routes under ``/v1/operator/jobs`` of many jobs at once."""

_declare(ROUTES, "")
_declare(OPERATOR_ROUTES, " of all tenants")
