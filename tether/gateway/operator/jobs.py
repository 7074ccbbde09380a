"""The routes of jobs of all tenants. They show neither prompts nor results: these are their tenants' own."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from tether.client.documents import history_to_json, placements_to_json, status_to_json
from tether.core.direct.jobs import JobOfTenant, JobReads
from tether.errors import JobNotFound
from tether.gateway.acts import act_of, log_of
from tether.gateway.jobs.documents import StateDocument
from tether.gateway.jobs.queries import ListQuery, read_list_query
from tether.gateway.jobs.routes import LIST_PARAMETERS
from tether.gateway.keys.api_keys import Scope
from tether.gateway.keys.key_ring import Caller
from tether.gateway.openapi import in_query
from tether.gateway.operator.documents import (
    OPERATOR,
    TENANT_ID,
    AnyHistoryDocument,
    AnyJobDocument,
    AnyJobListDocument,
    AnyPlacementsDocument,
)
from tether.gateway.operator.queries import tenant_in_query
from tether.gateway.responses import json_answer
from tether.gateway.routes import Reply, RoomRoutes
from tether.gateway.services import GatewayServices
from tether.ids import JobId, TenantId
from tether.job_names import job_named

ROUTES = RoomRoutes("operator", prefix=OPERATOR)
"""The routes under ``/v1/operator/jobs``."""


@ROUTES.declare(
    "GET",
    "/jobs",
    "List jobs of all tenants, newest first",
    about="jobs of all tenants, or of one: `tenant`, and what `GET /v1/jobs` takes",
    details="Pages are as of GET /v1/jobs.",
    scopes=(Scope.OPERATOR,),
    replies={200: Reply("A page of jobs.", AnyJobListDocument)},
    errors=(422,),
    parameters=[in_query("tenant", TENANT_ID, "Only this tenant's."), *LIST_PARAMETERS],
)
async def list_every_job(edge: GatewayServices, caller: Caller, request: Request) -> Response:
    items = request.query_params.multi_items()
    query = read_list_query(items, also=("tenant",))
    tenant_id = tenant_in_query(dict(items).get("tenant"))
    backend = edge.core().backend
    reads = backend.every_job if tenant_id is None else backend.for_tenant(tenant_id).job_port.reads
    # A key of its own is its own party among those that wait for lists.
    turns, party = edge.core().plane.list_reads, TenantId(caller.key_id)
    return await turns.in_turn(party, lambda: edge.call(_page, reads, query))


@ROUTES.declare(
    "GET",
    "/jobs/{job_id}",
    "Show a job of any tenant",
    about="one job of any tenant, without its result",
    scopes=(Scope.OPERATOR,),
    replies={200: Reply("The status of the job.", AnyJobDocument)},
    errors=(404,),
)
async def show_any_job(edge: GatewayServices, job_id: str) -> Response:
    return json_answer(_document(await edge.call(edge.core().backend.every_job.one, job_named(job_id))))


@ROUTES.declare(
    "GET",
    "/jobs/{job_id}/attempts",
    "Show the attempts of a job of any tenant",
    about="every attempt of a job of any tenant, also the one that runs, and where the job is now",
    scopes=(Scope.OPERATOR,),
    replies={200: Reply("The attempts, the first one first.", AnyHistoryDocument)},
    errors=(404,),
)
async def show_any_attempts(edge: GatewayServices, job_id: str) -> Response:
    tenant_id, history = await edge.call(edge.core().backend.every_job.history, job_named(job_id))
    return json_answer({**history_to_json(history), "tenant_id": tenant_id})


@ROUTES.declare(
    "GET",
    "/jobs/{job_id}/placements",
    "Show how a job of any tenant came to its pools",
    about="each hand-over of a job of any tenant to a pool: why that pool, and what was expected there",
    scopes=(Scope.OPERATOR,),
    replies={200: Reply("The hand-overs, the first one first.", AnyPlacementsDocument)},
    errors=(404,),
)
async def show_any_placements(edge: GatewayServices, job_id: str) -> Response:
    tenant_id, placements = await edge.call(edge.core().backend.every_job.placements, job_named(job_id))
    return json_answer({**placements_to_json(placements), "tenant_id": tenant_id})


@ROUTES.declare(
    "DELETE",
    "/jobs/{job_id}",
    "Cancel a job of any tenant",
    about="cancel a job of any tenant; repeating this changes nothing",
    scopes=(Scope.OPERATOR,),
    replies={
        200: Reply(
            "The current state. A running job ends once its worker has received the cancellation.",
            StateDocument,
        )
    },
    errors=(404,),
)
async def cancel_any_job(edge: GatewayServices, caller: Caller, request: Request, job_id: str) -> Response:
    return await edge.call(_cancel, edge, caller, request, job_named(job_id))


def _cancel(edge: GatewayServices, caller: Caller, request: Request, job_id: JobId) -> Response:
    backend, log = edge.core().backend, log_of(edge)
    try:
        tenant_id = backend.every_job.one(job_id).tenant_id
    except JobNotFound as error:
        log.note_refusal(act_of(caller, request, "jobs.cancel", job_id), error)
        raise
    act = act_of(caller, request, "jobs.cancel", job_id, tenant_id)
    state = log.elsewhere(act, lambda: backend.for_tenant(tenant_id).job_port.cancel(job_id))
    return json_answer({"object": "job.state", "job_id": job_id, "state": state.value})


def _page(reads: JobReads, query: ListQuery) -> Response:
    """Find a page of jobs. It may be large: it is written on this thread."""
    cursor = None if query.cursor is None else JobId(query.cursor)
    found, following = reads.page(query.job_filter, cursor, query.limit)
    return json_answer({"object": "list", "data": list(map(_document, found)), "next_cursor": following})


def _document(one: JobOfTenant) -> dict[str, Any]:
    return {**status_to_json(one.status), "tenant_id": one.tenant_id}
