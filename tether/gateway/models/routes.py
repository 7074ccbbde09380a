"""The routes of models, in the shape of OpenAI's."""

from __future__ import annotations

from starlette.responses import Response

from tether.client.documents import model_to_json
from tether.client.model_port import ModelPort
from tether.errors import UnknownModel
from tether.gateway.keys.api_keys import Scope
from tether.gateway.keys.key_ring import Caller
from tether.gateway.models.documents import ModelDocument, ModelListDocument
from tether.gateway.responses import json_answer
from tether.gateway.routes import Reply, RoomRoutes
from tether.gateway.services import GatewayServices

ROUTES = RoomRoutes("models", port=lambda backend: backend.model_port)
"""The routes under ``/v1/models``."""


ROUTES.serve(
    ModelPort.models,
    "List models",
    about="the configured models, in the form of OpenAI's list",
    scopes=(Scope.READ,),
    text="All models.",
    document=ModelListDocument,
)


@ROUTES.declare(
    "GET",
    "/models/{name:path}",
    "Show a model",
    about="one of the configured models",
    scopes=(Scope.READ,),
    replies={200: Reply("The model.", ModelDocument)},
    errors=(404,),
)
async def show_model(edge: GatewayServices, caller: Caller, name: str) -> Response:
    version = edge.core().plane.registry.find(name)
    for model in edge.backend(caller).model_port.models():
        if (model.name, model.version) == (version.name, version.version):
            return json_answer(model_to_json(model))
    raise UnknownModel(f"there is no model {name[:200]!r}")
