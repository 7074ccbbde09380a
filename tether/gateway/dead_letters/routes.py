"""The routes of dead letters, declared once for tenants and once for operators."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from tether.client.documents import document_of_kind, json_bytes
from tether.client.letter_calls import filter_document
from tether.client.letter_documents import letter_page_to_json, letter_to_json, retries_to_json
from tether.core.direct.dead_letters import DirectLetterPort
from tether.dead_letters import LetterPage, LetterRetry
from tether.gateway.acts import SMALL_BODY
from tether.gateway.dead_letters import documents
from tether.gateway.dead_letters.doors import LetterDoor, OperatorDoor, TenantDoor
from tether.gateway.dead_letters.queries import (
    LetterQuery,
    read_letter_batch,
    read_letter_query,
    read_retry,
)
from tether.gateway.keys.key_ring import Caller
from tether.gateway.openapi import in_query
from tether.gateway.operator.documents import OPERATOR, TENANT_ID
from tether.gateway.responses import json_answer
from tether.gateway.routes import Reply, RoomRoutes
from tether.gateway.schemas import inlined
from tether.gateway.services import GatewayServices
from tether.ids import JobId

NDJSON = "application/x-ndjson"

EXPORT_PAGE = 100
"""Letters that an export holds at once."""

_FILTERS = (
    in_query("state", documents.STATE, "Only letters that are open, or that were retried; or all of these."),
    in_query("reason", documents.TEXT, "Only letters with this reason."),
    in_query("model", documents.TEXT, "Only letters of jobs for this model."),
    in_query("pool", documents.TEXT, "Only letters of jobs that this pool had last."),
    in_query(
        "created_after", documents.TIME, "Only jobs that died at or after this time, in ms since the epoch."
    ),
    in_query(
        "created_before", documents.TIME, "Only jobs that died before this time, in ms since the epoch."
    ),
)
_PAGING = (
    in_query("limit", documents.LIMIT, "Maximum number of letters on the page."),
    in_query("cursor", documents.CURSOR, "next_cursor of the previous page."),
)


def _declare(routes: RoomRoutes, door: LetterDoor, whose: str) -> None:
    """Declare all routes of one door."""
    tenant = [in_query("tenant", TENANT_ID, "Only this tenant's.")] if routes.prefix == OPERATOR else []
    errors_of_retry = (400, 404, 408, 409, 410, 413, 422)

    @routes.declare(
        "GET",
        "/dead-letters",
        f"List dead letters{whose}, newest first",
        about=f"dead letters{whose}, newest first: `state`, `reason`, `model`, `pool`, `created_after`, "
        "`created_before`, `limit`, `cursor`",
        details="All filters that are given must match. A page may hold fewer letters than its limit, or "
        "none, and have a `next_cursor` all the same: go on until there is none.",
        scopes=door.reading,
        replies={200: Reply("A page of dead letters.", documents.LetterListDocument)},
        errors=(422,),
        parameters=[*tenant, *_FILTERS, *_PAGING],
    )
    async def list_letters(edge: GatewayServices, caller: Caller, request: Request) -> Response:
        query = read_letter_query(request.query_params.multi_items())
        page = await _page(edge, caller, door, query)
        return await edge.call(lambda: json_answer(letter_page_to_json(page)))

    @routes.declare(
        "GET",
        "/dead-letters:export",
        f"Export dead letters{whose}",
        about=f"all dead letters{whose} that match, as JSON lines: filters as of the list",
        details="What dies while it runs is not in it. One that fails ends its connection early.",
        scopes=door.reading,
        replies={200: Reply("Dead letters, one JSON object a line.", content={NDJSON: {"schema": {}}})},
        errors=(422,),
        parameters=[*tenant, *_FILTERS],
    )
    async def export_letters(edge: GatewayServices, caller: Caller, request: Request) -> Response:
        query = read_letter_query(request.query_params.multi_items(), is_paged=False)
        # The first page is read before the answer begins: what is refused is still an error.
        page = await _page(edge, caller, door, LetterQuery(query.letter_filter, None, EXPORT_PAGE))
        return StreamingResponse(_lines(edge, caller, door, query, page), media_type=NDJSON)

    @routes.declare(
        "GET",
        "/dead-letters:summary",
        f"Count dead letters{whose}",
        about=f"how many dead letters{whose} are open, how old the oldest is, and when it expires",
        scopes=door.reading,
        replies={200: Reply("How many there are.", documents.LetterSummaryDocument)},
    )
    async def summarize_letters(edge: GatewayServices, caller: Caller) -> Response:
        found = await edge.call(door.port(edge, caller).summary)
        return json_answer(document_of_kind(type(found), found))

    @routes.declare(
        "GET",
        "/dead-letters/{job_id}",
        f"Show a dead letter{whose}",
        about="the dead letter of a job, with its attempts and the chain of its retries",
        scopes=door.reading,
        replies={200: Reply("The dead letter.", documents.LetterDetailsDocument)},
        errors=(404,),
    )
    async def show_letter(edge: GatewayServices, caller: Caller, job_id: str) -> Response:
        return json_answer(letter_to_json(await edge.call(door.port(edge, caller).letter, JobId(job_id))))

    @routes.declare(
        "POST",
        "/dead-letters:retry",
        f"Retry a dead letter{whose}",
        about="retry a dead job as a new one, by its retry token; the same token again answers the same job",
        details="The new job has the same correlation id, and passes admission like any submission.",
        scopes=door.changing,
        replies={
            202: Reply("The new job is durable, and will run.", documents.LetterRetryDocument),
            200: Reply("The job that this token made before.", documents.LetterRetryDocument),
        },
        errors=errors_of_retry,
        body=inlined(documents.RetryLetterBody),
    )
    async def retry_letter(edge: GatewayServices, caller: Caller, request: Request) -> Response:
        async with edge.bodies.receive(request, caller.tenant_id, SMALL_BODY) as body:
            retry_token, force = await body.read(read_retry)
        port = door.port(edge, caller)

        def carry_out() -> LetterRetry:
            return door.change(
                edge,
                caller,
                request,
                "dead_letters.retry",
                {"force": force},
                lambda: port.retry(retry_token, force),
                retry_token=retry_token,
            )

        retried = await edge.call(carry_out)
        headers = {"location": f"/v1/jobs/{retried.retried_as}"}
        document = document_of_kind(LetterRetry, retried)
        return json_answer(document, 202 if retried.is_new else 200, headers)

    @routes.declare(
        "POST",
        "/dead-letters:retry-where",
        f"Retry dead letters{whose} that match",
        about="retry a batch of open dead letters; each has its own result",
        details="One that cannot be retried stops no other. Go on with `next_cursor` as `cursor`, and the "
        "same `where`, until there is none.",
        scopes=door.changing,
        replies={200: Reply("What came of each.", documents.LetterRetriesDocument)},
        errors=(400, 408, 413, 422),
        body=inlined(documents.RetryLettersBody),
    )
    async def retry_letters(edge: GatewayServices, caller: Caller, request: Request) -> Response:
        async with edge.bodies.receive(request, caller.tenant_id, SMALL_BODY) as body:
            query = await body.read(lambda values: read_letter_batch(values, may_force=True))
        port = door.port(edge, caller)

        def carry_out() -> Response:
            details = {**filter_document(query.letter_filter), "force": query.force}
            batch = door.change(
                edge,
                caller,
                request,
                "dead_letters.retry_where",
                details,
                lambda: port.retry_where(query.letter_filter, query.force, query.cursor, query.limit),
            )
            return json_answer(retries_to_json(batch))

        return await edge.call(carry_out)

    @routes.declare(
        "POST",
        "/dead-letters:purge",
        f"Purge dead letters{whose} that match",
        about="purge a batch of open dead letters: their tokens make no jobs any more",
        details="One that cannot be purged stops no other: `failed` names it. Go on with `next_cursor` as "
        "`cursor`, and the same `where`, until there is none.",
        scopes=door.changing,
        replies={200: Reply("How many were purged.", documents.LetterPurgeDocument)},
        errors=(400, 408, 413, 422),
        body=inlined(documents.PurgeLettersBody),
    )
    async def purge_letters(edge: GatewayServices, caller: Caller, request: Request) -> Response:
        async with edge.bodies.receive(request, caller.tenant_id, SMALL_BODY) as body:
            query = await body.read(lambda values: read_letter_batch(values, may_force=False))
        port = door.port(edge, caller)

        def carry_out() -> Response:
            found = door.change(
                edge,
                caller,
                request,
                "dead_letters.purge",
                filter_document(query.letter_filter),
                lambda: port.purge(query.letter_filter, query.cursor, query.limit),
            )
            return json_answer(document_of_kind(type(found), found))

        return await edge.call(carry_out)


async def _page(edge: GatewayServices, caller: Caller, door: LetterDoor, query: LetterQuery) -> LetterPage:
    port: DirectLetterPort = door.port(edge, caller)
    turns = edge.core().plane.list_reads
    return await turns.in_turn(
        door.party(caller),
        lambda: edge.call(port.find_in_turn, query.letter_filter, query.cursor, query.limit),
    )


async def _lines(
    edge: GatewayServices, caller: Caller, door: LetterDoor, query: LetterQuery, page: LetterPage
) -> AsyncIterator[bytes]:
    while True:
        yield await edge.call(_lines_of, page)
        if page.next_cursor is None:
            return
        following = LetterQuery(query.letter_filter, page.next_cursor, EXPORT_PAGE)
        page = await _page(edge, caller, door, following)


def _lines_of(page: LetterPage) -> bytes:
    return b"".join(json_bytes(letter_to_json(letter)) + b"\n" for letter in page.letters)


ROUTES = RoomRoutes("dead letters")
"""The routes under ``/v1/dead-letters``."""

OPERATOR_ROUTES = RoomRoutes("operator", prefix=OPERATOR)
"""The routes under ``/v1/operator/dead-letters``."""

_declare(ROUTES, TenantDoor(), "")
_declare(OPERATOR_ROUTES, OperatorDoor(), " of all tenants")
