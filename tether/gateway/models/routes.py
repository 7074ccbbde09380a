"""The routes of models, in the shape of OpenAI's."""

from __future__ import annotations

from starlette.responses import Response

from tether.admission.policy_terms import version_meant
from tether.client.documents import model_to_json
from tether.client.model_port import ModelPort
from tether.core.control_plane import ControlPlane
from tether.errors import UnknownModel
from tether.gateway.keys.api_keys import Scope
from tether.gateway.keys.key_ring import Caller
from tether.gateway.models.documents import ModelDocument, ModelListDocument
from tether.gateway.responses import json_answer
from tether.gateway.routes import Reply, RoomRoutes
from tether.gateway.services import GatewayServices
from tether.ids import TenantId
from tether.statuses import ModelInfo

ROUTES = RoomRoutes("models", port=lambda backend: backend.model_port)
"""The routes under ``/v1/models``."""


ROUTES.serve(
    ModelPort.models,
    "List models",
    about="the models that the caller may use, in the form of OpenAI's list",
    scopes=(Scope.READ,),
    text="The models that the caller's policy allows.",
    document=ModelListDocument,
)


@ROUTES.declare(
    "GET",
    "/models/{name:path}",
    "Show a model",
    about="one of the models that the caller may use",
    scopes=(Scope.READ,),
    replies={200: Reply("The model.", ModelDocument)},
    errors=(404,),
)
async def show_model(edge: GatewayServices, caller: Caller, name: str) -> Response:
    plane, port = edge.core().plane, edge.backend(caller).model_port
    return json_answer(model_to_json(await edge.call(_model, plane, port, caller.tenant_id, name)))


def _model(plane: ControlPlane, port: ModelPort, tenant: TenantId, name: str) -> ModelInfo:
    meant = version_meant(plane.registry, tenant, plane.scheduler.policies.of_tenant(tenant), name)
    for model in port.models():
        if (model.name, model.version) == (meant.name, meant.version):
            return model
    raise UnknownModel(f"there is no model {name[:200]!r}")
