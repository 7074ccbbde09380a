"""The gateway as an ASGI application."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import compile_path

import tether
from tether.config import Settings
from tether.errors import ClientClosed, GatewayUnavailable, MethodNotAllowed, RouteUnknown, TetherError
from tether.gateway.answers import error_answer
from tether.gateway.chat_routes import chat_routes
from tether.gateway.edge import Edge
from tether.gateway.frame import Frame
from tether.gateway.job_routes import job_routes
from tether.gateway.key_routes import key_routes
from tether.gateway.openapi import DESCRIPTION, finish
from tether.gateway.other_routes import health_routes, model_routes


def make_app(settings: Settings, edge: Edge) -> FastAPI:
    """The application over this edge, which it starts and stops with its own life."""

    @contextlib.asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        try:
            await edge.start()
            yield
        finally:
            await edge.stop()

    app = FastAPI(
        title="Tether",
        version=tether.__version__,
        description=DESCRIPTION,
        lifespan=life,
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_exception_handler(TetherError, _on_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_middleware(Frame, header_limit=settings.gateway.header_limit)
    for router in (
        job_routes(edge),
        chat_routes(edge),
        model_routes(edge),
        key_routes(edge),
        health_routes(edge),
    ):
        app.include_router(router)
    finish(app)
    return app


async def _on_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, TetherError)
    if isinstance(error, ClientClosed):
        # The core was closed under a request that was still under way.
        error = GatewayUnavailable("the gateway is stopping: send the same again, here or to another one")
        error.retry_after = 1
    return error_answer(error)


async def _on_http_error(request: Request, error: Exception) -> Response:
    """Of the router's: no such address, or not with this method."""
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.url.path[:200]}"
    headers = dict(error.headers or {})
    if error.status_code == 405:
        allowed = ", ".join(sorted(_methods(request.app, request.url.path))) or headers.get("Allow", "")
        refusal = MethodNotAllowed(f"{where}: this address takes only {allowed}")
        return error_answer(refusal, {**headers, "Allow": allowed})
    return error_answer(
        RouteUnknown(f"{where}: there is no such address; /openapi.json names all that there are"), headers
    )


def _methods(app: FastAPI, path: str) -> set[str]:
    """All methods of an address, whichever of its routes they belong to."""
    return {
        method.upper()
        for template, operations in app.openapi()["paths"].items()
        if compile_path(template)[0].match(path)
        for method in operations
    }
