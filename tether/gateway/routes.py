"""How a route is declared: once, with all that is said of it, above the function that answers."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from tether.client.operations import Operation, operation_of
from tether.client.ports import Backend
from tether.errors import TetherError
from tether.gateway.keys.api_keys import Scope
from tether.gateway.keys.key_ring import Caller
from tether.gateway.openapi import operation
from tether.gateway.responses import json_answer
from tether.gateway.schemas import document_for
from tether.gateway.services import GatewayServices

Handler = Callable[..., Awaitable[Response]]
"""Answers a request. It takes what it names of edge, request, caller and the path's parameters."""

_GIVEN = ("edge", "request", "caller")


@dataclass(frozen=True)
class Reply:
    """One status that a route answers with.

    Attributes:
      text: What it means.
      model: The document; None where it is none.
      content: What else than that document it may be, by media type.
    """

    text: str
    model: type[BaseModel] | None = None
    content: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Route:
    """One route: its declaration and its handler.

    Attributes:
      path: Whole, with its parameters in braces.
      handler: Answers.
      scopes: What the caller's key must be good for; with none it is open to all, and without a caller.
      summary: Its name in the OpenAPI document.
      about: What ``docs/reference/http.md`` says of it, and the OpenAPI document first.
      details: What the OpenAPI document says after that, in whole sentences.
      replies: By status.
      errors: Statuses beside those that every route may answer with.
      body: JSON schema of the body.
      parameters: Of query and headers, as OpenAPI has them.
      answer_error: Writes errors of this route; None is the form of all.
      has_head: Whether HEAD is answered as well.
    """

    method: str
    path: str
    handler: Handler
    scopes: tuple[Scope, ...]
    summary: str
    about: str
    details: str
    replies: Mapping[int, Reply]
    errors: tuple[int, ...]
    body: Mapping[str, Any] | None
    parameters: tuple[Mapping[str, Any], ...]
    answer_error: Callable[[TetherError], Response] | None
    has_head: bool

    def description(self) -> str:
        """What the OpenAPI document says of it, in whole sentences."""
        return f"{self.about[:1].upper()}{self.about[1:]}. {self.details}".rstrip()

    def endpoint(self, edge: GatewayServices) -> Handler:
        """The handler with all that it takes beside the path's parameters."""
        signature = inspect.signature(self.handler, eval_str=True)
        taken = [name for name in _GIVEN if name in signature.parameters]
        of_path = [each for name, each in signature.parameters.items() if name not in _GIVEN]
        handler, scopes, answer_error = self.handler, self.scopes, self.answer_error

        @functools.wraps(handler)
        async def answer(request: Request, **values: Any) -> Response:
            given: dict[str, Any] = {"edge": edge, "request": request}
            try:
                if scopes:
                    given["caller"] = caller = await edge.caller(request, scopes[0])
                    for scope in scopes[1:]:
                        caller.require(scope)
                return await handler(**{name: given[name] for name in taken}, **values)
            except TetherError as error:
                if answer_error is None:
                    raise
                return answer_error(error)

        request = inspect.Parameter("request", inspect.Parameter.KEYWORD_ONLY, annotation=Request)
        of_path = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in of_path]
        # What FastAPI reads parameters from.
        answer.__signature__ = signature.replace(parameters=[request, *of_path])  # type: ignore[attr-defined]
        return answer


class RoomRoutes:
    """The routes of one subject, in the order in which they are declared.

    Args:
      room: The subject, under which the OpenAPI document has them.
      prefix: What all their paths begin with.
      port: Finds the port whose operations they serve in a caller's backend.
    """

    def __init__(
        self, room: str, *, prefix: str = "/v1", port: Callable[[Backend], object] | None = None
    ) -> None:
        self.room = room
        self.prefix = prefix
        self._port = port
        self.routes: list[Route] = []

    def declare(
        self,
        method: str,
        path: str,
        summary: str,
        *,
        about: str,
        replies: Mapping[int, Reply],
        details: str = "",
        scopes: tuple[Scope, ...] = (),
        errors: tuple[int, ...] = (),
        body: Mapping[str, Any] | None = None,
        parameters: Sequence[Mapping[str, Any]] = (),
        answer_error: Callable[[TetherError], Response] | None = None,
        has_head: bool = False,
    ) -> Callable[[Handler], Handler]:
        """Declare the function below as the handler of a route; see :class:`Route`."""

        def declared(handler: Handler) -> Handler:
            route = Route(
                method=method,
                path=self.prefix + path,
                handler=handler,
                scopes=scopes,
                summary=summary,
                about=about,
                details=details,
                replies=replies,
                errors=errors,
                body=body,
                parameters=tuple(parameters),
                answer_error=answer_error,
                has_head=has_head,
            )
            self.routes.append(route)
            return handler

        return declared

    def serve(
        self,
        function: Callable[..., Any],
        summary: str,
        *,
        about: str,
        scopes: tuple[Scope, ...],
        text: str,
        document: type[BaseModel] | None = None,
        errors: tuple[int, ...] = (),
    ) -> None:
        """Serve a port's method that was declared with :func:`~tether.client.operations.over_http`: its
        parameters come from the path, and the route answers with what it returns.

        Args:
          text: What the document is.
          document: Describes it, where more is to be said than follows from the returned type.
        """
        declared = operation_of(function)
        self.declare(
            declared.method,
            declared.path.removeprefix(self.prefix),
            summary,
            about=about,
            scopes=scopes,
            replies={200: Reply(text, document or document_for(declared.returns))},
            errors=errors,
        )(self._serving(declared))

    def _serving(self, declared: Operation) -> Handler:
        port = self._port
        assert port is not None, f"the routes of {self.room} have no port"

        async def answer(edge: GatewayServices, caller: Caller, **values: Any) -> Response:
            method = getattr(port(edge.backend(caller)), declared.name)
            return json_answer(declared.document_of(await edge.call(method, **values)))

        keyword = inspect.Parameter.KEYWORD_ONLY
        given = [inspect.Parameter(name, keyword) for name in ("edge", "caller")]
        parameters = [parameter.replace(kind=keyword) for parameter in declared.path_parameters]
        # What the endpoint is made from.
        answer.__signature__ = inspect.Signature([*given, *parameters])  # type: ignore[attr-defined]
        return answer

    def router(self, edge: GatewayServices) -> APIRouter:
        """All of them over this edge."""
        router = APIRouter(tags=[self.room])
        for route in self.routes:
            endpoint = route.endpoint(edge)
            router.add_api_route(route.path, endpoint, methods=[route.method], **_described(route))
            if route.has_head:
                router.add_api_route(
                    route.path, endpoint, methods=["HEAD"], include_in_schema=False, response_model=None
                )
        return router


def _described(route: Route) -> dict[str, Any]:
    replies = {
        status: {
            "description": reply.text,
            **({} if reply.model is None else {"model": reply.model}),
            **({"content": dict(reply.content)} if reply.content else {}),
        }
        for status, reply in route.replies.items()
    }
    return operation(
        route.summary,
        route.description(),
        replies,
        route.errors,
        is_open=not route.scopes,
        body=route.body,
        parameters=route.parameters,
    )
