"""The routes of models, of health and of metrics."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from tether.client.documents import model_to_json
from tether.errors import UnknownModel
from tether.gateway.answers import json_answer
from tether.gateway.api_keys import Scope
from tether.gateway.edge import Edge
from tether.gateway.openapi import HEALTH, METRICS, MODEL, MODELS, READY
from tether.telemetry import metrics


def model_routes(edge: Edge) -> APIRouter:
    """The routes under ``/v1/models``, in the shape of OpenAI's."""
    router = APIRouter(prefix="/v1", tags=["models"])

    @router.get("/models", **MODELS)
    async def list_models(request: Request) -> Response:
        caller = await edge.caller(request, Scope.READ)
        models = edge.backend(caller).models()
        return json_answer({"object": "list", "data": [model_to_json(model) for model in models]})

    @router.get("/models/{name:path}", **MODEL)
    async def show_model(request: Request, name: str) -> Response:
        caller = await edge.caller(request, Scope.READ)
        version = edge.core().plane.registry.find(name)
        for model in edge.backend(caller).models():
            if (model.name, model.version) == (version.name, version.version):
                return json_answer(model_to_json(model))
        raise UnknownModel(f"there is no model {name[:200]!r}")

    return router


def health_routes(edge: Edge) -> APIRouter:
    """The routes for those who watch over the gateway. They need no key, and tell nothing of jobs."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", **HEALTH)
    async def healthz() -> Response:
        return json_answer({"status": "ok"})

    @router.get("/readyz", **READY)
    async def readyz() -> Response:
        database, in_redis = await edge.health()
        # Without Redis jobs are accepted all the same, and wait.
        status = "ready" if database and in_redis else "degraded" if database else "unavailable"
        document = {
            "status": status,
            "database": "ok" if database else "unavailable",
            "redis": "ok" if in_redis else "unavailable",
        }
        return json_answer(document, 200 if database else 503)

    # Load balancers ask with HEAD.
    for path, endpoint in (("/healthz", healthz), ("/readyz", readyz)):
        router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False, response_model=None)

    @router.get("/metrics", **METRICS)
    async def show_metrics() -> Response:
        return Response(metrics.exposition(), media_type=metrics.EXPOSITION_TYPE)

    return router
