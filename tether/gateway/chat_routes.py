"""The route of chat completions, in the form of OpenAI's. Each is a job like any other."""

from __future__ import annotations

import secrets

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from tether.broker.connections import address_of
from tether.client.backend import Submitted
from tether.client.direct import DirectBackend
from tether.errors import BrokerUnavailable, NoLiveWorker, TetherError
from tether.gateway.answers import openai_error_answer
from tether.gateway.api_keys import Scope
from tether.gateway.bodies import read_json
from tether.gateway.chat_answers import ChatDocumentAnswer, ChatStreamAnswer
from tether.gateway.chat_bodies import ChatRequest, read_chat
from tether.gateway.chat_documents import ChatHead
from tether.gateway.chat_frames import ChatFrames, GatheredChat
from tether.gateway.chat_job import ChatJob
from tether.gateway.chat_openapi import CHAT
from tether.gateway.edge import Core, Edge
from tether.gateway.key_ring import Caller
from tether.scheduling.scheduler_middleware import now_ms
from tether.store import queries

REDIS_RETRY_SECONDS = 2.0
"""When to try again while Redis is away."""


def chat_routes(edge: Edge) -> APIRouter:
    """The route ``/v1/chat/completions``."""
    router = APIRouter(prefix="/v1", tags=["chat"])
    limit = edge.settings.gateway.body_limit

    @router.post("/chat/completions", **CHAT)
    async def complete(request: Request) -> Response:
        try:
            caller = await edge.caller(request, Scope.SUBMIT)
            # The answer is what the job made.
            caller.require(Scope.READ)
            asked = read_chat(
                await read_json(request, limit),
                now_ms(),
                request.headers,
                find=edge.core().plane.registry.find,
                randomness=secrets.token_bytes,
            )
            return await _answer(edge, caller, asked)
        except TetherError as error:
            return openai_error_answer(error)

    return router


async def _answer(edge: Edge, caller: Caller, asked: ChatRequest) -> Response:
    frames = ChatFrames(wants_usage=asked.wants_usage) if asked.is_streamed else GatheredChat()
    backend = edge.backend(caller)
    # Whatever would refuse the answer refuses the job, before it is there.
    stream = edge.streams.open("", caller, frames)
    job = ChatJob(edge, backend, may_come_back=bool(asked.job.retry_token))
    try:
        submitted = await edge.call(_submit, edge.core(), backend, caller.tenant_id, asked)
        stream.job_id = job.job_id = submitted.job_id
        frames.begin(ChatHead(submitted.job_id, asked.model))
        stream.subscribe(await edge.call(backend.follow, submitted.job_id, 0, stream.deliver))
    except BaseException:
        edge.streams.close(stream)
        await job.leave()
        raise
    if isinstance(frames, GatheredChat):
        return ChatDocumentAnswer(edge.streams, stream, frames, job)
    return ChatStreamAnswer(edge.streams, stream, frames, job)


def _submit(core: Core, backend: DirectBackend, tenant: str, asked: ChatRequest) -> Submitted:
    """Make the job. What cannot be answered soon is refused before that; what is one already is not.

    Raises:
      BrokerUnavailable: Redis is away.
      NoLiveWorker: Nobody serves the model now.
      TetherError: The job is refused.
    """
    job = asked.job
    key = (tenant, job.correlation_id or job.retry_token, job.retry_token)
    if not job.retry_token or core.plane.store.read(queries.job_with_key, key) is None:
        _check_served(core, asked)
    (answer,) = backend.submit([job])
    if isinstance(answer, Exception):
        raise answer
    return answer


def _check_served(core: Core, asked: ChatRequest) -> None:
    error: TetherError
    if not core.redis_answers():
        error = BrokerUnavailable(
            f"Redis at {address_of(core.plane.client)} does not answer: try again, or submit a job to "
            "/v1/jobs, which waits until it is back"
        )
        error.retry_after = REDIS_RETRY_SECONDS
        raise error
    if not core.plane.scheduler.is_served(asked.job.model):
        error = NoLiveWorker(
            f"no worker serves model {asked.model.name!r} now: start one with `tether worker`, try again, or "
            "submit a job to /v1/jobs, which waits for one"
        )
        error.retry_after = core.plane.settings.presence.interval / 1000
        raise error
