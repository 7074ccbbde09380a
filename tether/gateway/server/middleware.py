"""What every request passes through: the limit of its head, its measures, and an answer whatever happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tether.errors import GatewayUnavailable, HeadersTooLarge, InvalidRequest, TetherError
from tether.gateway.responses import error_answer
from tether.gateway.server.addresses import tidied
from tether.telemetry import metrics
from tether.telemetry.logs import get_logger

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE"})
_AS_LONG_AS_JOBS = ("/v1/jobs/{job_id}/stream", "/v1/chat/completions", "/v1/operator/fleet/changes")
"""Their answers take as long as their jobs do, or as somebody watches, which says nothing of the gateway."""


_ONCE = (b"authorization", b"idempotency-key", b"x-correlation-id", b"last-event-id", b"content-length")


def _contradiction(names: Sequence[bytes]) -> str:
    """What is wrong with headers that another program on the way could read otherwise than this one."""
    for name in _ONCE:
        if names.count(name) > 1:
            return f"duplicate header {name.decode()}: send it once"
    if b"content-length" in names and b"transfer-encoding" in names:
        return "the headers content-length and transfer-encoding cannot be combined: send only one"
    return ""


def _problem_of_head(scope: Scope, header_limit: int) -> TetherError | None:
    """Why a request is refused for its head alone."""
    if problem := _contradiction([name for name, _ in scope["headers"]]):
        return InvalidRequest(problem)
    size = len(scope["raw_path"]) + len(scope["query_string"])
    size += sum(len(name) + len(value) for name, value in scope["headers"])
    if size <= header_limit:
        return None
    return HeadersTooLarge(
        f"the headers of the request have {size} bytes; the maximum is {header_limit}: send less, or raise "
        "gateway.header_limit"
    )


class PreflightLimit:
    """ASGI middleware around what answers browsers' preflights: their heads have the limit of all others."""

    def __init__(self, app: ASGIApp, *, header_limit: int) -> None:
        self._app = app
        self._header_limit = header_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            error = _problem_of_head(scope, self._header_limit)
            if error is not None:
                await error_answer(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class RequestMiddleware:
    """ASGI middleware around the whole application."""

    def __init__(
        self, app: ASGIApp, *, header_limit: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._app = app
        self._header_limit = header_limit
        self._clock = clock
        self._log = get_logger("tether.gateway")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = self._clock(), 0
        scope["path"] = tidied(scope["path"])

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            error = _problem_of_head(scope, self._header_limit)
            await (self._app if error is None else error_answer(error))(scope, receive, watched)
        except asyncio.CancelledError:
            # Uvicorn does that, when a gateway stops and a request has not ended in time.
            if status:
                raise
            error = GatewayUnavailable(
                "the gateway is shutting down: send the same request again, here or to another one"
            )
            await error_answer(error)(scope, receive, watched)
        except Exception as failure:
            self._log.exception("A request failed.", method=scope["method"], path=scope["path"][:200])
            if status:
                raise
            error = TetherError(f"the gateway failed ({type(failure).__name__}); see its log")
            await error_answer(error)(scope, receive, watched)
        finally:
            self._note(scope, status, self._clock() - began)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route: Any = scope.get("route")
        path = getattr(route, "path", "other")
        # Neither paths nor methods of a client's own making become labels: each would stay for ever.
        method = scope["method"] if scope["method"] in _METHODS else "other"
        metrics.HTTP_REQUESTS.labels(method=method, route=path, status=str(status)).inc()
        if path not in _AS_LONG_AS_JOBS:
            metrics.HTTP_SECONDS.labels(route=path).observe(seconds)
        self._log.debug(
            "Answered.",
            method=scope["method"],
            path=scope["path"][:200],
            status=status,
            milliseconds=round(seconds * 1000, 2),
        )
