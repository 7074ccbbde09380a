"""The route of chat completions, in the form of OpenAI's. Each is a job like any other."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from tether.admission.policy_terms import version_meant
from tether.broker.redis.connections import address_of
from tether.core.direct.backend import DirectBackend
from tether.errors import BrokerUnavailable, InvalidRequest, TetherError, UnknownModel
from tether.gateway.keys.api_keys import Scope
from tether.gateway.keys.key_ring import Caller
from tether.gateway.openai.bodies import ChatRequest, in_words_of, read_chat
from tether.gateway.openai.chunks import ChatChunkEncoder, GatheredChat
from tether.gateway.openai.documents import ChatHead
from tether.gateway.openai.job import ChatJob
from tether.gateway.openai.responses import ChatDocumentAnswer, ChatStreamAnswer
from tether.gateway.openai.schemas import ChatCompletionDocument, chat_request_body
from tether.gateway.openapi import KEY_HEADERS
from tether.gateway.responses import openai_error_answer
from tether.gateway.routes import Reply, RoomRoutes
from tether.gateway.schemas import ErrorDocument
from tether.gateway.services import GatewayCore, GatewayServices
from tether.ids import NO_JOB, TenantId
from tether.jobs import Submitted
from tether.models.registry import ModelVersion
from tether.statuses import ModelInfo, absence_text
from tether.store import queries

REDIS_RETRY_SECONDS = 2.0
"""When to try again while Redis is away."""


ROUTES = RoomRoutes("chat")
"""The route ``/v1/chat/completions``."""


@ROUTES.declare(
    "POST",
    "/chat/completions",
    "Create a chat completion, compatible with OpenAI's",
    about="create a chat completion, compatible with OpenAI's",
    # The answer is what the job made.
    scopes=(Scope.SUBMIT, Scope.READ),
    replies={
        200: Reply(
            "The completion; with stream, its chunks as server-sent events.",
            ChatCompletionDocument,
            {
                "text/event-stream": {
                    "schema": {"type": "string"},
                    "example": (
                        'data: {"object":"chat.completion.chunk","choices":[{"delta":{"content":"A"}}]}\n\n'
                    ),
                }
            },
        ),
        422: Reply("Two headers contradict each other.", ErrorDocument),
    },
    errors=(400, 404, 408, 409, 413, 504),
    body=chat_request_body(),
    parameters=KEY_HEADERS,
    answer_error=openai_error_answer,
)
async def complete(edge: GatewayServices, caller: Caller, request: Request) -> Response:
    plane, headers = edge.core().plane, request.headers
    now_ms, tenant, policies = plane.clock.now_ms(), caller.tenant_id, plane.scheduler.policies
    at_hand = policies.at_hand(tenant)
    policy = await edge.call(policies.of_tenant, tenant) if at_hand is None else at_hand

    def find(name: str) -> ModelVersion:
        return version_meant(plane.registry, tenant, policy, name)

    def read(values: Mapping[str, Any]) -> ChatRequest:
        return read_chat(
            values,
            now_ms,
            headers,
            find=find,
            randomness=secrets.token_bytes,
            ignores_unknown=edge.settings.gateway.unknown_fields == "ignore",
        )

    async with edge.bodies.receive(request, caller.tenant_id, edge.job_limit) as body:
        return await _answer(edge, caller, await body.read(read))


async def _answer(edge: GatewayServices, caller: Caller, asked: ChatRequest) -> Response:
    frames = ChatChunkEncoder(wants_usage=asked.wants_usage) if asked.is_streamed else GatheredChat()
    backend = edge.backend(caller)
    # Whatever would refuse the answer refuses the job, before it is there.
    stream = edge.streams.open(NO_JOB, caller, frames, can_resume=False)
    job = ChatJob(edge, backend, may_come_back=bool(asked.job.retry_token))
    try:
        submitted, model = await edge.call(_submit, edge.core(), backend, caller.tenant_id, asked)
        stream.job_id = job.job_id = submitted.job_id
        frames.begin(ChatHead(submitted.job_id, model))
        stream.subscribe(await edge.call(backend.stream_port.follow, submitted.job_id, 0, stream.deliver))
    except BaseException:
        edge.streams.close(stream)
        await job.leave()
        raise
    if isinstance(frames, GatheredChat):
        return ChatDocumentAnswer(edge.streams, stream, frames, job, asked.ignored, submitted)
    return ChatStreamAnswer(edge.streams, stream, frames, job, asked.ignored, submitted)


def _submit(
    core: GatewayCore, backend: DirectBackend, tenant: TenantId, asked: ChatRequest
) -> tuple[Submitted, ModelVersion]:
    """Make the job, and say on which model it runs. What cannot be answered soon is refused before that; what
    is one already is not.

    Raises:
      BrokerUnavailable: Redis is away.
      NoLiveWorker: Nobody serves the model now.
      BreakerOpen: It fails wherever it is served.
      TetherError: The job is refused.
    """
    job = asked.job
    key = (tenant, job.correlation_id or job.retry_token, job.retry_token)
    if not job.retry_token or core.plane.store.read(queries.job_with_key, key) is None:
        _check_served(core, backend, tenant, asked)
    (answer,) = backend.job_port.submit([job])
    if isinstance(answer, InvalidRequest):
        raise in_words_of(answer, asked.names)
    if isinstance(answer, Exception):
        raise answer
    return answer, _model_of(core, answer, asked.model)


def _model_of(core: GatewayCore, submitted: Submitted, asked: ModelVersion) -> ModelVersion:
    if submitted.degraded_from is None:
        return asked
    row = core.plane.store.read(queries.job, submitted.job_id)
    try:
        return asked if row is None else core.plane.registry.find(f"{row.model}@{row.model_version}")
    except UnknownModel:
        # The job was made earlier, and its model is configured no longer.
        return asked


def _check_served(core: GatewayCore, backend: DirectBackend, tenant: TenantId, asked: ChatRequest) -> None:
    error: TetherError
    if not core.redis_answers():
        error = BrokerUnavailable(
            f"Redis at {address_of(core.plane.client)} does not respond: try again, or submit a job to "
            "/v1/jobs, which waits until it is back"
        )
        error.outward = (
            "Redis does not respond: try again, or submit a job to /v1/jobs, which waits until it is back"
        )
        error.retry_after = REDIS_RETRY_SECONDS
        raise error
    why = core.plane.scheduler.why_not_now(asked.job, tenant)
    if why is not None:
        # Who announces a model and is given no jobs is for its operator to look at; the client learns whether
        # there is hope.
        others = next(
            (absence_text(one) for one in backend.model_port.models() if _is_asked(one, asked.model)), ""
        )
        raise core.plane.scheduler.no_live_worker(asked.model.name, why or others)


def _is_asked(model: ModelInfo, asked: ModelVersion) -> bool:
    return (model.name, model.version) == (asked.name, asked.version)
