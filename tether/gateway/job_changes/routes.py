"""The routes of changes of many jobs, declared once for tenants and once for operators."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from tether.client.change_calls import where_document
from tether.client.change_documents import changes_to_json
from tether.core.direct.job_changes import DirectChangePort
from tether.errors import JobNotFound
from tether.gateway.acts import SMALL_BODY, act_of, log_of
from tether.gateway.job_changes import documents
from tether.gateway.job_changes.queries import (
    ChangeQuery,
    read_change,
    read_new_priority,
    read_reprioritisation,
)
from tether.gateway.jobs.documents import StateDocument
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
from tether.job_names import job_named
from tether.jobs import JobState
from tether.store.audit import Act

_BODY_LIMIT = BodyLimit(65_536)
"""Of a request that says which jobs: labels may be many."""


def _declare(routes: RoomRoutes, whose: str) -> None:
    """Declare all routes of one side."""
    is_operator = routes.prefix == OPERATOR

    def port_of(edge: GatewayServices, caller: Caller) -> DirectChangePort:
        return edge.core().backend.every_change_port if is_operator else edge.backend(caller).change_port

    async def carried_out(
        edge: GatewayServices, caller: Caller, query: ChangeQuery, act: Act, change: Callable[[], JobChanges]
    ) -> Response:
        def carry_out() -> Response:
            if is_operator and not query.dry_run:
                return _answer(log_of(edge).elsewhere(act, change))
            return _answer(change())

        # A key of its own is an operator's party among those that wait for lists.
        party = TenantId(caller.key_id) if is_operator else caller.tenant_id
        turns = edge.core().plane.list_reads
        return await turns.in_turn(party, lambda: edge.call(carry_out))

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

        act = _act(caller, request, "jobs.cancel_where", query)
        return await carried_out(edge, caller, query, act, change)

    @routes.declare(
        "POST",
        "/jobs:reprioritise-where",
        f"Give jobs{whose} that match another priority",
        about=f"give a batch of jobs{whose} that match and have not ended another priority; each has its own "
        "result",
        details="One that cannot be changed stops no other. Waiting jobs keep their age; those that run go "
        "on, and their next attempts have the new priority. Batches are as of `jobs:cancel-where`.",
        scopes=(Scope.OPERATOR if is_operator else Scope.SUBMIT,),
        replies={200: Reply("What came of each.", documents.JobChangesDocument)},
        errors=(400, 408, 413, 422),
        body=inlined(documents.ReprioritiseJobsBody),
    )
    async def reprioritise_jobs(edge: GatewayServices, caller: Caller, request: Request) -> Response:
        async with edge.bodies.receive(request, caller.tenant_id, _BODY_LIMIT) as body:
            asked = await body.read(read_reprioritisation)
        port, query, priority = port_of(edge, caller), asked.change, asked.priority

        def change() -> JobChanges:
            return port.reprioritise_in_turn(
                query.job_filter, priority, query.dry_run, query.cursor, query.limit
            )

        act = _act(caller, request, "jobs.reprioritise_where", query, priority=priority.value)
        return await carried_out(edge, caller, query, act, change)

    @routes.declare(
        "PATCH",
        "/jobs/{job_id}",
        "Give a job of any tenant another priority" if is_operator else "Give a job another priority",
        about=f"give a job{' of any tenant' if is_operator else ''} another priority: a waiting job keeps "
        "its age, a running one has it for its next attempt; repeating this changes nothing",
        scopes=(Scope.OPERATOR if is_operator else Scope.SUBMIT,),
        replies={200: Reply("The current state.", StateDocument)},
        errors=(400, 404, 408, 409, 413, 422),
        body=inlined(documents.PriorityBody),
    )
    async def reprioritise_job(
        edge: GatewayServices, caller: Caller, request: Request, job_id: str
    ) -> Response:
        found = job_named(job_id)
        async with edge.bodies.receive(request, caller.tenant_id, SMALL_BODY) as body:
            priority = await body.read(read_new_priority)
        port = port_of(edge, caller)

        def change() -> JobState:
            return port.reprioritise(found, priority)

        def carry_out() -> Response:
            state = log_act(change) if is_operator else change()
            return json_answer({"object": "job.state", "job_id": found, "state": state.value})

        def log_act(change: Callable[[], JobState]) -> JobState:
            log = log_of(edge)
            try:
                tenant_id = edge.core().backend.every_job.one(found).tenant_id
            except JobNotFound as error:
                act = act_of(caller, request, "jobs.reprioritise", found, priority=priority.value)
                log.note_refusal(act, error)
                raise
            act = act_of(caller, request, "jobs.reprioritise", found, tenant_id, priority=priority.value)
            return log.elsewhere(act, change)

        return await edge.call(carry_out)


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
