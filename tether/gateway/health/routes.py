"""The routes for those who watch over the gateway. They need no key, and tell nothing of jobs."""

from __future__ import annotations

from starlette.responses import Response

from tether.gateway.health.documents import HealthDocument, ReadyDocument
from tether.gateway.responses import json_answer
from tether.gateway.routes import Reply, RoomRoutes
from tether.gateway.services import GatewayServices
from tether.telemetry import metrics

ROUTES = RoomRoutes("health", prefix="")
"""``/healthz``, ``/readyz`` and ``/metrics``. Load balancers ask the first two with HEAD."""


@ROUTES.declare(
    "GET",
    "/healthz",
    "Liveness check",
    about="the process is alive",
    replies={200: Reply("The gateway is alive.", HealthDocument)},
    has_head=True,
)
async def healthz() -> Response:
    return json_answer({"status": "ok"})


@ROUTES.declare(
    "GET",
    "/readyz",
    "Readiness check",
    about="200 while jobs can be accepted: `ready`, or `degraded` without Redis or an orchestrator; 503 "
    "without the database, or where that cannot be written, as on a full disk",
    replies={
        200: Reply("Jobs can be accepted.", ReadyDocument),
        503: Reply("Jobs cannot be accepted: the database cannot be read or written.", ReadyDocument),
    },
    has_head=True,
)
async def readyz(edge: GatewayServices) -> Response:
    health = await edge.health()
    return json_answer(vars(health) | {"status": health.status}, 200 if health.accepts_jobs else 503)


@ROUTES.declare(
    "GET",
    "/metrics",
    "Metrics for Prometheus",
    about="metrics for Prometheus",
    replies={
        200: Reply("All metrics of this process.", content={"text/plain": {"schema": {"type": "string"}}})
    },
)
async def show_metrics() -> Response:
    return Response(metrics.exposition(), media_type=metrics.exposition_type())
