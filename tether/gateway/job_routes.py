"""The routes of jobs: submit, list, show, cancel, follow."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from tether.client.backend import JobStatus, StreamEvent, Submitted, check_job_id
from tether.client.direct import DirectBackend, StoreArchive
from tether.client.documents import (
    error_to_json,
    page_to_json,
    position_of,
    status_to_json,
    submitted_to_json,
)
from tether.client.handles import AsyncJobHandle, Gathering
from tether.errors import InvalidRequest, TetherError
from tether.gateway.answers import json_answer
from tether.gateway.api_keys import Scope
from tether.gateway.bodies import MOST_JOBS, read_job, read_json
from tether.gateway.edge import Edge
from tether.gateway.event_stream import EventStreamResponse
from tether.gateway.openapi import (
    BATCH,
    CANCEL,
    FOLLOW,
    LIST,
    SHOW,
    SUBMIT,
)
from tether.gateway.queries import read_list_query, single
from tether.jobs import JobRequest, Piece
from tether.scheduling.scheduler_middleware import now_ms

RESULT_SECONDS = 5.0
"""How long the result of a job is waited for that has just ended."""


def job_routes(edge: Edge) -> APIRouter:
    """The routes under ``/v1/jobs``."""
    router = APIRouter(prefix="/v1", tags=["jobs"])
    limit = edge.settings.gateway.body_limit

    @router.post("/jobs", **SUBMIT)
    async def submit_job(request: Request) -> Response:
        caller = await edge.caller(request, Scope.SUBMIT)
        wanted = read_job(await read_json(request, limit), now_ms(), request.headers)
        (answer,) = await edge.call(edge.backend(caller).submit, [wanted])
        if isinstance(answer, Exception):
            raise answer
        return json_answer(
            submitted_to_json(answer),
            202 if answer.is_new else 200,
            {"location": f"/v1/jobs/{answer.job_id}"},
        )

    @router.post("/jobs:batch", **BATCH)
    async def submit_jobs(request: Request) -> Response:
        caller = await edge.caller(request, Scope.SUBMIT)
        wanted = _read_batch(await read_json(request, limit), now_ms())
        accepted = [one for one in wanted if isinstance(one, JobRequest)]
        answers = iter(await edge.call(edge.backend(caller).submit, accepted) if accepted else [])
        told = [_item(next(answers) if isinstance(one, JobRequest) else one) for one in wanted]
        return json_answer({"object": "list", "data": told})

    @router.get("/jobs", **LIST)
    async def list_jobs(request: Request) -> Response:
        caller = await edge.caller(request, Scope.READ)
        query = read_list_query(request.query_params.multi_items())
        find = edge.backend(caller).find
        page = await edge.call(find, query.job_filter, query.cursor, query.limit)
        return json_answer(page_to_json(page))

    @router.get("/jobs/{job_id}", **SHOW)
    async def show_job(request: Request, job_id: str) -> Response:
        caller = await edge.caller(request, Scope.READ)
        backend, archive = edge.backend(caller), edge.core().archive
        status, answer = await edge.call(_show, backend, archive, job_id)
        if answer is not None:
            return answer
        # It has ended in Redis, and its end is about to be recorded.
        gathered = await _gather(AsyncJobHandle(job_id, backend, edge.calls))
        result = None if gathered is None else _result(gathered[0].pieces, gathered[1])
        return json_answer({**status_to_json(status), "result": result})

    @router.delete("/jobs/{job_id}", **CANCEL)
    async def cancel_job(request: Request, job_id: str) -> Response:
        caller = await edge.caller(request, Scope.SUBMIT)
        state = await edge.call(edge.backend(caller).cancel, job_id)
        return json_answer({"object": "job.state", "job_id": job_id, "state": state.value})

    @router.get("/jobs/{job_id}/stream", **FOLLOW)
    async def follow_job(request: Request, job_id: str) -> Response:
        caller = await edge.caller(request, Scope.READ)
        check_job_id(job_id)
        run, offset = _position(request)
        stream = edge.streams.open(job_id, caller)
        try:
            backend = edge.backend(caller)
            stream.subscribe(await edge.call(backend.follow, job_id, offset, stream.deliver, run=run))
        except BaseException:
            edge.streams.close(stream)
            raise
        return EventStreamResponse(edge.streams, stream)

    return router


def _read_batch(values: Mapping[str, Any], now: int) -> list[JobRequest | TetherError]:
    items = values.get("jobs")
    if not isinstance(items, list) or not 1 <= len(items) <= MOST_JOBS or len(values) > 1:
        raise InvalidRequest(
            f'a batch is an object with nothing but "jobs", a list of 1 to {MOST_JOBS} requests for jobs'
        )
    read: list[JobRequest | TetherError] = []
    for item in items:
        try:
            if not isinstance(item, dict):
                raise InvalidRequest(f"a request for a job is of type {type(item).__name__}, not an object")
            read.append(read_job(item, now))
        except TetherError as error:
            read.append(error)
    return read


def _item(answer: Submitted | Exception) -> dict[str, Any]:
    if isinstance(answer, Submitted):
        return {"status": 202 if answer.is_new else 200, "job": submitted_to_json(answer)}
    if isinstance(answer, TetherError):
        return {"status": answer.http_status, **error_to_json(answer)}
    raise answer


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
            f"{name} {text[:100]!r} is no place in a stream: give the id of an event, or a number of tokens"
        ) from None


def _show(backend: DirectBackend, archive: StoreArchive, job_id: str) -> tuple[JobStatus, Response | None]:
    """A job's status, and the answer that shows it. A result may be large: it is written on this thread."""
    status = backend.status(job_id)
    if not status.state.is_final:
        return status, json_answer({**status_to_json(status), "result": None})
    found = archive.ended([job_id]).get(job_id)
    if found is None:
        return status, None
    return status, json_answer({**status_to_json(status), "result": _result(found.pieces, found.last)})


def _result(pieces: Sequence[Piece], last: StreamEvent) -> dict[str, Any] | None:
    """What a job that ended has made; None where it made nothing."""
    if not pieces and last.kind != "finished":
        return None
    return {
        "text": "".join(piece.text for piece in pieces),
        "token_ids": [piece.token_id for piece in pieces],
        "finish_reason": last.details.get("reason", ""),
    }


async def _gather(handle: AsyncJobHandle) -> tuple[Gathering, StreamEvent] | None:
    gathering = Gathering(handle.job_id)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(RESULT_SECONDS), contextlib.aclosing(handle.events()) as events:
            async for event in events:
                gathering.add(event)
                if event.is_last:
                    return gathering, event
    return None
