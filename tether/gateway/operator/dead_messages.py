"""The routes of plain actors' dead messages, for operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from tether.client.dead_message_port import DeadMessagePort
from tether.client.documents import document_of_kind
from tether.core.direct.dead_messages import DirectDeadMessagePort
from tether.dead_messages import (
    MAX_DEAD_MESSAGES,
    DeadMessage,
    DeadMessagePage,
    DeadMessagePurge,
    DeadMessageRetry,
)
from tether.errors import InvalidRequest
from tether.gateway.acts import SMALL_BODY, act_of, log_of
from tether.gateway.jobs.queries import single
from tether.gateway.keys.api_keys import Scope
from tether.gateway.keys.key_ring import Caller
from tether.gateway.openapi import in_query
from tether.gateway.operator.documents import OPERATOR
from tether.gateway.responses import json_answer
from tether.gateway.routes import Reply, RoomRoutes
from tether.gateway.schemas import Document, document_of, inlined
from tether.gateway.services import GatewayServices
from tether.job_filters import MAX_FILTER_TIME_MS

MESSAGES_PER_PAGE = 50
"""Dead messages of a page or purge where nobody says how many."""

MAX_QUEUE_CHARACTERS = 128
MAX_TOKEN = 1_100

_OPERATOR = (Scope.OPERATOR,)
_Answer = TypeVar("_Answer")

ROUTES = RoomRoutes("operator", prefix=OPERATOR, port=lambda backend: backend.dead_message_port)

DeadMessageDocument = document_of("DeadMessageDocument", DeadMessage)
DeadMessageRetryDocument = document_of("DeadMessageRetryDocument", DeadMessageRetry)
DeadMessagePurgeDocument = document_of("DeadMessagePurgeDocument", DeadMessagePurge)


class DeadMessageListDocument(Document):
    """A page of dead messages, newest first."""

    messages: list[DeadMessageDocument]  # type: ignore[valid-type]
    next_cursor: str | None = Field(description="Cursor of the next page; null on the last one.")


class RetryMessageBody(Document):
    """A request to retry one dead message."""

    queue: str = Field(max_length=MAX_QUEUE_CHARACTERS)
    retry_token: str = Field(max_length=MAX_TOKEN)
    force: bool = Field(False, description="Retry it although it cannot be read here.")


class PurgeMessagesBody(Document):
    """A request to purge dead messages of one queue."""

    queue: str = Field(max_length=MAX_QUEUE_CHARACTERS)
    retry_token: str | None = Field(None, max_length=MAX_TOKEN, description="Only this one.")
    died_before: int | None = Field(None, ge=0, le=MAX_FILTER_TIME_MS, description="Only these.")
    limit: int = Field(MESSAGES_PER_PAGE, ge=1, le=MAX_DEAD_MESSAGES)


ROUTES.serve(
    DeadMessagePort.queues,
    "List queues with dead messages",
    about="queues of plain actors that have dead messages: how many, how old, and for how long they are kept",
    scopes=_OPERATOR,
    text="The queues, by name.",
)


@ROUTES.declare(
    "GET",
    "/dead-messages/{queue}",
    "List dead messages",
    about="dead messages of a queue of plain actors, newest first: `payloads`, `limit`, `cursor`",
    details="With `payloads` each comes with its bytes in base64, up to 4 MiB.",
    scopes=_OPERATOR,
    replies={200: Reply("A page of dead messages.", DeadMessageListDocument)},
    errors=(422,),
    parameters=[
        in_query("payloads", {"type": "boolean", "default": False}, "Whether each comes with its bytes."),
        in_query(
            "limit",
            {"type": "integer", "minimum": 1, "maximum": MAX_DEAD_MESSAGES, "default": MESSAGES_PER_PAGE},
            "Maximum number of messages on the page.",
        ),
        in_query("cursor", {"type": "string"}, "next_cursor of the previous page."),
    ],
)
async def list_messages(edge: GatewayServices, caller: Caller, request: Request, queue: str) -> Response:
    query = single(request.query_params.multi_items(), ("payloads", "limit", "cursor"))
    limit, payloads = query.get("limit", str(MESSAGES_PER_PAGE)), query.get("payloads", "false")
    if not (limit.isascii() and limit.isdigit()) or payloads not in ("true", "false"):
        raise InvalidRequest("limit must be an integer, and payloads true or false")
    port = _port(edge)
    page = await edge.call(port.find, queue, query.get("cursor"), int(limit[:6]), payloads == "true")
    return await edge.call(lambda: json_answer(document_of_kind(DeadMessagePage, page)))


@ROUTES.declare(
    "GET",
    "/dead-messages/{queue}/{retry_token}",
    "Show a dead message",
    about="one dead message, with its bytes in base64",
    scopes=_OPERATOR,
    replies={200: Reply("The dead message.", DeadMessageDocument)},
    errors=(404, 422),
)
async def show_message(edge: GatewayServices, queue: str, retry_token: str) -> Response:
    return json_answer(
        document_of_kind(DeadMessage, await edge.call(_port(edge).message, queue, retry_token))
    )


@ROUTES.declare(
    "POST",
    "/dead-messages:retry",
    "Retry a dead message",
    about="put a dead message back into its queue, once for each token; the same token again says so",
    details="It goes back as it is: its actor is tried once more where its retries are used up.",
    scopes=_OPERATOR,
    replies={200: Reply("It is in its queue.", DeadMessageRetryDocument)},
    errors=(400, 404, 408, 409, 410, 413, 422),
    body=inlined(RetryMessageBody),
)
async def retry_message(edge: GatewayServices, caller: Caller, request: Request) -> Response:
    async with edge.bodies.receive(request, caller.tenant_id, SMALL_BODY) as body:
        queue, retry_token, force = await body.read(_read_retry)
    port = _port(edge)
    details = {"retry_token": retry_token[:MAX_TOKEN], "force": force}
    change = _changing(edge, caller, request, "dead_messages.retry", queue, details)
    retried = await edge.call(change, lambda: port.retry(queue, retry_token, force))
    return json_answer(document_of_kind(DeadMessageRetry, retried))


@ROUTES.declare(
    "POST",
    "/dead-messages:purge",
    "Purge dead messages",
    about="remove a dead message, or a batch of those that died before a time, the oldest first",
    details="Go on until fewer are purged than the limit.",
    scopes=_OPERATOR,
    replies={200: Reply("How many were removed.", DeadMessagePurgeDocument)},
    errors=(400, 404, 408, 413, 422),
    body=inlined(PurgeMessagesBody),
)
async def purge_messages(edge: GatewayServices, caller: Caller, request: Request) -> Response:
    async with edge.bodies.receive(request, caller.tenant_id, SMALL_BODY) as body:
        queue, retry_token, died_before, limit = await body.read(_read_purge)
    port = _port(edge)
    details = {"retry_token": retry_token, "died_before": died_before, "limit": limit}
    change = _changing(edge, caller, request, "dead_messages.purge", queue, details)
    purged = await edge.call(change, lambda: port.purge(queue, retry_token, died_before, limit))
    return json_answer(document_of_kind(DeadMessagePurge, purged))


def _port(edge: GatewayServices) -> DirectDeadMessagePort:
    return edge.core().backend.dead_message_port


def _changing(
    edge: GatewayServices,
    caller: Caller,
    request: Request,
    action: str,
    queue: str,
    details: dict[str, Any],
) -> Callable[[Callable[[], _Answer]], _Answer]:
    def change(function: Callable[[], _Answer]) -> _Answer:
        return log_of(edge).elsewhere(act_of(caller, request, action, queue, None, **details), function)

    return change


def _read_retry(values: Mapping[str, Any]) -> tuple[str, str, bool]:
    if not {"queue", "retry_token"} <= values.keys() <= {"queue", "retry_token", "force"}:
        raise InvalidRequest('the body must have "queue", "retry_token" and optionally "force", no more')
    force = values.get("force", False)
    if not isinstance(force, bool):
        raise InvalidRequest("force must be true or false")
    return _string(values, "queue"), _string(values, "retry_token"), force


def _read_purge(values: Mapping[str, Any]) -> tuple[str, str | None, int | None, int]:
    if not {"queue"} <= values.keys() <= {"queue", "retry_token", "died_before", "limit"}:
        raise InvalidRequest(
            'the body must have "queue" and optionally "retry_token", "died_before" and "limit", no more'
        )
    retry_token = None if values.get("retry_token") is None else _string(values, "retry_token")
    died_before = None if values.get("died_before") is None else _integer(values, "died_before", 0)
    if died_before is not None and not 0 <= died_before <= MAX_FILTER_TIME_MS:
        raise InvalidRequest(f"died_before must be from 0 to {MAX_FILTER_TIME_MS}")
    return _string(values, "queue"), retry_token, died_before, _integer(values, "limit", MESSAGES_PER_PAGE)


def _string(values: Mapping[str, Any], name: str) -> str:
    value = values[name]
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} must be a string")
    return value


def _integer(values: Mapping[str, Any], name: str, default: int) -> int:
    value = values.get(name, default)
    # In JSON 3.0 is an integer.
    value = int(value) if isinstance(value, float) and value.is_integer() else value
    if type(value) is not int:
        raise InvalidRequest(f"{name} must be an integer")
    return value
