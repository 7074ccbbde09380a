"""The routes of jobs: submit, list, show, cancel, follow."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tether.client.async_handles import AsyncJobHandle
from tether.client.documents import (
    explanation_to_json,
    history_to_json,
    json_bytes,
    page_to_json,
    placements_to_json,
    status_to_json,
)
from tether.client.handles import Gathering
from tether.client.job_port import JobPort
from tether.client.submission_documents import submitted_to_json
from tether.core.direct.backend import DirectBackend
from tether.core.direct.jobs import DirectJobPort
from tether.core.direct.streams import StoreArchive
from tether.errors import InvalidRequest, RateLimited, TetherError
from tether.gateway.bodies import read_batch, read_job_request
from tether.gateway.jobs.documents import (
    BatchDocument,
    ExplanationDocument,
    HistoryDocument,
    JobListDocument,
    PlacementsDocument,
    StateDocument,
    SubmittedDocument,
    WholeJobDocument,
    batch_body,
    job_request_body,
)
from tether.gateway.jobs.queries import JOBS_PER_PAGE, ListQuery, read_list_query, single
from tether.gateway.keys.api_keys import Scope
from tether.gateway.keys.key_ring import Caller
from tether.gateway.openapi import KEY_HEADERS, in_header, in_query
from tether.gateway.rate_headers import rate_headers
from tether.gateway.responses import error_document, ignored_header, json_answer
from tether.gateway.routes import Reply, RoomRoutes
from tether.gateway.services import GatewayServices
from tether.gateway.sse.response import EventStreamResponse
from tether.ids import JobId
from tether.job_filters import MAX_FILTER_TIME_MS
from tether.job_names import check_job_id, job_named
from tether.jobs import JobRequest, JobState, Piece, Submitted
from tether.requests import fields
from tether.requests.rules import PRINTABLE
from tether.statuses import MAX_JOBS_PER_PAGE, JobStatus
from tether.streams.events import StreamEvent, position_of
from tether.telemetry.logs import get_logger

_log = get_logger("tether.gateway")

RESULT_SECONDS = 5.0
"""How long the result of a job is waited for that has just ended."""


ROUTES = RoomRoutes("jobs")
"""The routes under ``/v1/jobs``."""

_TIME = {"type": "integer", "minimum": 0, "maximum": MAX_FILTER_TIME_MS}
LIST_PARAMETERS = (
    in_query(
        "state",
        {"type": "array", "items": {"type": "string", "enum": [state.value for state in JobState]}},
        "Only jobs in any of these states.",
    ),
    in_query(
        "model",
        {"type": "string", "maxLength": fields.MAX_NAME_BYTES, "pattern": PRINTABLE},
        "Only jobs for this model.",
    ),
    in_query(
        "label",
        {"type": "array", "items": {"type": "string", "pattern": "^[a-z]+=[a-z]*$"}, "maxItems": 32},
        "Only jobs with all of these labels, each written `key=value`.",
    ),
    in_query("created_after", _TIME, "Only jobs created at or after this time, in ms since the epoch."),
    in_query("created_before", _TIME, "Only jobs created before this time, in ms since the epoch."),
    in_query(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": MAX_JOBS_PER_PAGE, "default": JOBS_PER_PAGE},
        "Maximum number of jobs on the page.",
    ),
    in_query("cursor", {"type": "string", "format": "uuid"}, "next_cursor of the previous page."),
)
"""What a list of jobs can be asked for with."""

_POSITION = {"type": "string", "pattern": r"^([0-9]{1,9}\.)?[0-9]{1,9}$"}


@ROUTES.declare(
    "POST",
    "/jobs",
    "Submit a job",
    about="submit a job: 202, or 200 if the same request was already submitted with its keys",
    scopes=(Scope.SUBMIT,),
    replies={
        202: Reply("The job is durable, and will run.", SubmittedDocument),
        200: Reply("The job for which these keys were first used.", SubmittedDocument),
    },
    errors=(400, 404, 408, 409, 413, 422),
    body=job_request_body(),
    parameters=KEY_HEADERS,
)
async def submit_job(edge: GatewayServices, caller: Caller, request: Request) -> Response:
    now_ms, headers, port = edge.core().plane.clock.now_ms(), request.headers, edge.backend(caller).job_port
    async with edge.bodies.receive(request, caller.tenant_id, edge.job_limit) as body:
        ignored = ignored_fields(edge)
        wanted = await body.read(lambda values: read_job_request(values, now_ms, headers, ignored=ignored))
        (answer,) = await edge.call(port.submit, [wanted])
    if isinstance(answer, Exception):
        raise answer
    return json_answer(
        submitted_to_json(answer),
        202 if answer.is_new else 200,
        {
            "location": f"/v1/jobs/{answer.job_id}",
            **rate_headers(answer.standings),
            **ignored_header(ignored or ()),
        },
    )


@ROUTES.declare(
    "POST",
    "/jobs:batch",
    "Submit many jobs",
    about="up to 1,000 jobs in few transactions; each has its own result",
    scopes=(Scope.SUBMIT,),
    replies={200: Reply("The results, in order: each is a job or an error.", BatchDocument)},
    errors=(400, 408, 413, 422),
    body=batch_body(),
)
async def submit_jobs(edge: GatewayServices, caller: Caller, request: Request) -> Response:
    now_ms, port = edge.core().plane.clock.now_ms(), edge.backend(caller).job_port
    async with edge.bodies.receive(request, caller.tenant_id, edge.batch_limit) as body:
        ignored = ignored_fields(edge)
        wanted = await body.read(lambda values: read_batch(values, now_ms, ignored=ignored))
        return await edge.call(_submit_batch, port, wanted, ignored or ())


@ROUTES.declare(
    "GET",
    "/jobs",
    "List jobs, newest first",
    about="jobs, newest first: `state`, `label=key=value` (both repeatable), `model`, `created_after`, "
    "`created_before`, `limit`, `cursor`",
    details="All filters that are given must match. A page may hold fewer jobs than its limit, or none, and "
    "have a `next_cursor` all the same, since a request looks at a bounded number of jobs: go on, with the "
    "same filters and that value as `cursor`, until there is none. Too many lists at once get 429.",
    scopes=(Scope.READ,),
    replies={200: Reply("A page of jobs.", JobListDocument)},
    errors=(422,),
    parameters=LIST_PARAMETERS,
)
async def list_jobs(edge: GatewayServices, caller: Caller, request: Request) -> Response:
    query = read_list_query(request.query_params.multi_items())
    port = edge.backend(caller).job_port
    # Who waits for a turn holds no thread: others' calls have them.
    turns = edge.core().plane.list_reads
    return await turns.in_turn(caller.tenant_id, lambda: edge.call(_list_page, port, query))


@ROUTES.declare(
    "GET",
    "/jobs/{job_id}",
    "Show a job",
    about="one job; once it has ended, with its result",
    scopes=(Scope.READ,),
    replies={200: Reply("The status of the job, and its result once it has ended.", WholeJobDocument)},
    errors=(404,),
)
async def show_job(edge: GatewayServices, caller: Caller, job_id: str) -> Response:
    backend, archive = edge.backend(caller), edge.core().archive
    status, answer = await edge.call(_show, backend, archive, job_named(job_id))
    if answer is not None:
        return answer
    # It has ended in Redis, and its end is about to be recorded.
    gathered = await _gather(AsyncJobHandle(status.job_id, backend, edge.calls))
    pieces, last = (gathered[0].pieces, gathered[1]) if gathered else ((), None)
    return await edge.call(_written, status, pieces, last)


@ROUTES.declare(
    "GET",
    "/jobs/{job_id}/attempts",
    "Show a job's attempts",
    about="every attempt of a job, also the one that runs, and where the job is now",
    scopes=(Scope.READ,),
    replies={200: Reply("The attempts, the first one first.", HistoryDocument)},
    errors=(404,),
)
async def show_attempts(edge: GatewayServices, caller: Caller, job_id: str) -> Response:
    history = await edge.call(edge.backend(caller).job_port.history, job_named(job_id))
    return json_answer(history_to_json(history))


@ROUTES.declare(
    "GET",
    "/jobs/{job_id}/placements",
    "Show how a job came to its pools",
    about="each hand-over of a job to a pool: why that pool, what was expected there, and how long it really "
    "waited",
    details="The terms are those of the choice, as they were kept with it. Nothing is computed anew.",
    scopes=(Scope.READ,),
    replies={200: Reply("The hand-overs, the first one first.", PlacementsDocument)},
    errors=(404,),
)
async def show_placements(edge: GatewayServices, caller: Caller, job_id: str) -> Response:
    placements = await edge.call(edge.backend(caller).job_port.placements, job_named(job_id))
    return json_answer(placements_to_json(placements))


@ROUTES.declare(
    "POST",
    "/explain",
    "Explain where a job would be placed",
    about="where a job would be placed now, and why; no job is made",
    details="The body is that of `POST /v1/jobs`, and is checked in the same way. Quotas are not asked.",
    scopes=(Scope.READ,),
    replies={200: Reply("The pools of its model, compared.", ExplanationDocument)},
    errors=(400, 404, 408, 413, 422),
    body=job_request_body(),
)
async def explain_job(edge: GatewayServices, caller: Caller, request: Request) -> Response:
    now_ms, port = edge.core().plane.clock.now_ms(), edge.backend(caller).job_port
    async with edge.bodies.receive(request, caller.tenant_id, edge.job_limit) as body:
        ignored = ignored_fields(edge)
        wanted = await body.read(lambda values: read_job_request(values, now_ms, ignored=ignored))
        explanation = await edge.call(port.explain, wanted)
    return json_answer(explanation_to_json(explanation), headers=ignored_header(ignored or ()))


@ROUTES.declare(
    "DELETE",
    "/jobs/{job_id}",
    "Cancel a job",
    about="cancel a job; repeating this changes nothing",
    scopes=(Scope.SUBMIT,),
    replies={
        200: Reply(
            "The current state. A running job ends once its worker has received the cancellation.",
            StateDocument,
        )
    },
    errors=(404,),
)
async def cancel_job(edge: GatewayServices, caller: Caller, job_id: str) -> Response:
    found = job_named(job_id)
    state = await edge.call(edge.backend(caller).job_port.cancel, found)
    return json_answer({"object": "job.state", "job_id": found, "state": state.value})


@ROUTES.declare(
    "GET",
    "/jobs/{job_id}/stream",
    "Follow a job as server-sent events",
    about="the tokens of a job as they are generated, as server-sent events",
    scopes=(Scope.READ,),
    replies={
        200: Reply(
            "Events: started, delta, rerouted, restarted, finished, failed, each with the id of its place; "
            "the last one ends the stream. `interrupted`, without an id: if it is `retryable`, whatever its "
            "`code` (`gateway_stopping`, `reader_too_slow`), reconnect from the last id.",
            content={
                "text/event-stream": {
                    "schema": {"type": "string"},
                    "example": (
                        "id: 2\nevent: delta\n"
                        'data: {"run":0,"offset":2,"token_ids":[7,9],"texts":["one ","two "]}\n\n'
                    ),
                }
            },
        )
    },
    errors=(404, 422),
    parameters=[
        in_query("offset", _POSITION, "Where to start: a number of tokens, or the id of an event."),
        in_header("Last-Event-ID", _POSITION, "Id of the last event received; takes precedence over offset."),
    ],
)
async def follow_job(edge: GatewayServices, caller: Caller, request: Request, job_id: str) -> Response:
    followed = job_named(job_id)
    check_job_id(followed)
    run, offset = _position(request)
    stream = edge.streams.open(followed, caller)
    try:
        backend = edge.backend(caller)
        stream.subscribe(
            await edge.call(backend.stream_port.follow, stream.job_id, offset, stream.deliver, run=run)
        )
    except BaseException:
        edge.streams.close(stream)
        raise
    return EventStreamResponse(edge.streams, stream)


def _list_page(port: DirectJobPort, query: ListQuery) -> Response:
    """Find a page of jobs. It may be large: it is written on this thread."""
    return json_answer(page_to_json(port.find_in_turn(query.job_filter, query.cursor, query.limit)))


def ignored_fields(edge: GatewayServices) -> list[str] | None:
    """What receives the names of fields that are ignored; None where they are refused."""
    return [] if edge.settings.gateway.unknown_fields == "ignore" else None


def _submit_batch(
    port: JobPort, wanted: Sequence[JobRequest | TetherError], ignored: Sequence[str]
) -> Response:
    """Submit what is possible of a batch. The answer may be large: it is written on this thread."""
    accepted = [one for one in wanted if isinstance(one, JobRequest)]
    submitted = port.submit(accepted) if accepted else []
    answers = iter(submitted)
    items = [_item(next(answers) if isinstance(one, JobRequest) else one) for one in wanted]
    # Those of one call tell the same, where they were asked.
    told = next(
        (one.standings for one in submitted if isinstance(one, Submitted | RateLimited) and one.standings), ()
    )
    headers = {**rate_headers(told), **ignored_header(ignored)}
    return json_answer({"object": "list", "data": items}, headers=headers)


def _item(answer: Submitted | Exception) -> dict[str, Any]:
    if isinstance(answer, Submitted):
        return {"status": 202 if answer.is_new else 200, "job": submitted_to_json(answer)}
    if not isinstance(answer, TetherError):
        # Others of the batch are accepted already, and their clients must learn of it.
        _log.error("A hook of a middleware refused a job.", exc_info=answer)
        answer = TetherError(f"the gateway failed ({type(answer).__name__}); see its log")
    return {"status": answer.http_status, **error_document(answer)}


def _position(request: Request) -> tuple[int, int]:
    """The run and offset from which a reader goes on."""
    query = single(request.query_params.multi_items(), ("offset",))
    name, text = "offset", query.get("offset", "0")
    if request.headers.get("last-event-id"):
        name, text = "Last-Event-ID", request.headers["last-event-id"]
    try:
        return position_of(text)
    except ValueError:
        raise InvalidRequest(
            f"{name} {text[:100]!r} is not a position in a stream: use the id of an event, or a "
            "number of tokens"
        ) from None


def _show(backend: DirectBackend, archive: StoreArchive, job_id: JobId) -> tuple[JobStatus, Response | None]:
    """A job's status, and the answer that shows it. A result may be large: it is written on this thread."""
    status = backend.job_port.status(job_id)
    if not status.state.is_final:
        return status, _written(status, (), None)
    found = archive.ended([job_id]).get(job_id)
    if found is None:
        return status, None
    return status, _written(status, found.pieces, found.last)


def _written(status: JobStatus, pieces: Sequence[Piece], last: StreamEvent | None) -> Response:
    """Return the document of a job and of what it has made; the result of one that made nothing is null.

    Args:
      last: The event with which it ended; None while it has not.
    """
    document = status_to_json(status)
    if last is None or not (pieces or last.kind == "finished"):
        return json_answer({**document, "result": None})
    # A hundred thousand numbers take Python's own encoder 25 ms, in which no other thread runs.
    token_ids = msgspec.json.encode([piece.token_id for piece in pieces])
    text = json_bytes("".join(piece.text for piece in pieces))
    reason = json_bytes(last.details.get("reason", ""))
    result = b'{"text":%b,"token_ids":%b,"finish_reason":%b}' % (text, token_ids, reason)
    whole = b'%b,"result":%b}' % (json_bytes(document).removesuffix(b"}"), result)
    return Response(whole, media_type="application/json")


async def _gather(handle: AsyncJobHandle) -> tuple[Gathering, StreamEvent] | None:
    gathering = Gathering(handle.job_id)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(RESULT_SECONDS), contextlib.aclosing(handle.events()) as events:
            async for event in events:
                gathering.add(event)
                if event.is_last:
                    return gathering, event
    return None
