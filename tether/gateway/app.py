"""The gateway as an ASGI application."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import compile_path

from tether.config.settings import Settings
from tether.errors import ClientClosed, GatewayUnavailable, MethodNotAllowed, RouteUnknown, TetherError
from tether.gateway.dead_letters import routes as letters
from tether.gateway.health import routes as health
from tether.gateway.job_changes import routes as job_changes
from tether.gateway.jobs import routes as jobs
from tether.gateway.keys import routes as keys
from tether.gateway.models import routes as models
from tether.gateway.openai import routes as chat
from tether.gateway.openapi import DESCRIPTION, finish
from tether.gateway.operator import usage
from tether.gateway.operator.routes import OPERATOR_ROOMS
from tether.gateway.rate_headers import OPENAI_RATE_HEADERS, RATE_HEADERS
from tether.gateway.responses import error_answer
from tether.gateway.server.addresses import hint_for
from tether.gateway.server.middleware import PreflightLimit, RequestMiddleware
from tether.gateway.services import GatewayServices
from tether.version import __version__

TOLD_HEADERS = (
    *("location", "retry-after", "x-request-id", "x-should-retry", "x-tether-ignored", "x-tether-job-id"),
    *("www-authenticate", *RATE_HEADERS, *OPENAI_RATE_HEADERS),
)
"""Headers of answers that a page in a browser may read."""

ROOMS = (
    *(jobs.ROUTES, job_changes.ROUTES, letters.ROUTES, chat.ROUTES, models.ROUTES, keys.ROUTES),
    usage.ROUTES,
    *OPERATOR_ROOMS,
    health.ROUTES,
)
"""All routes, by room."""


def make_app(settings: Settings, edge: GatewayServices) -> FastAPI:
    """The application over this edge, which it starts and stops with its own life."""

    @contextlib.asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        try:
            await edge.start()
            # It takes 150 ms, for which whoever asks for it first would keep all others waiting.
            await edge.call(app.openapi)
            yield
        finally:
            await edge.stop()

    app = FastAPI(
        title="Tether",
        version=__version__,
        description=DESCRIPTION,
        lifespan=life,
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_exception_handler(TetherError, _on_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_middleware(RequestMiddleware, header_limit=settings.gateway.header_limit)
    if settings.gateway.cors_origins:
        # Around all else: a browser shows errors, too, only where they have these headers.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.gateway.cors_origins,
            allow_methods=("GET", "HEAD", "POST", "PATCH", "DELETE"),
            # OpenAI's client sends a dozen of its own.
            allow_headers=("*",),
            allow_private_network=True,
            expose_headers=TOLD_HEADERS,
        )
        app.add_middleware(PreflightLimit, header_limit=settings.gateway.header_limit)
    for room in ROOMS:
        app.include_router(room.router(edge))
    finish(app)
    return app


async def _on_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, TetherError)
    if isinstance(error, ClientClosed):
        # The core was closed under a request that was still under way.
        error = GatewayUnavailable(
            "the gateway is shutting down: send the same request again, here or to another one"
        )
        error.retry_after = 1
    return error_answer(error)


async def _on_http_error(request: Request, error: Exception) -> Response:
    """Of the router's: no such address, or not with this method."""
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.url.path[:200]}"
    headers = dict(error.headers or {})
    if error.status_code == 405:
        allowed = ", ".join(sorted(_methods(request.app, request.url.path))) or headers.get("Allow", "")
        refusal = MethodNotAllowed(f"{where}: only {allowed} is allowed here")
        return error_answer(refusal, {**headers, "Allow": allowed})
    hint = hint_for(request.url.path, lambda path: bool(_methods(request.app, path)))
    return error_answer(RouteUnknown(f"{where}: no such route; {hint[:300]}"), headers)


def _methods(app: FastAPI, path: str) -> set[str]:
    """All methods of an address, whichever of its routes they belong to."""
    return {
        method.upper()
        for template, operations in app.openapi()["paths"].items()
        if compile_path(template)[0].match(path)
        for method in operations
    }
