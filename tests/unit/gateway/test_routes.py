"""Routes as they are declared, and what comes of a declaration."""

import re

import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from tether.errors import Forbidden, TetherError
from tether.gateway.app import ROOMS
from tether.gateway.keys.api_keys import Scope
from tether.gateway.keys.key_ring import Caller
from tether.gateway.routes import Reply, RoomRoutes

ALL = [route for room in ROOMS for route in room.routes]


class OneCaller:
    """An edge whose callers all have one key, good for reading alone."""

    async def caller(self, request, scope):
        caller = Caller("acme", "key", frozenset({Scope.READ}))
        caller.require(scope)
        return caller


def written(error):
    return PlainTextResponse(f"written: {error.code}", 418)


def client_of(*declarations):
    """A client of an application with one route for each: what is declared of it, and its handler."""
    room = RoomRoutes("room")
    for number, (declared, handler) in enumerate(declarations):
        room.declare(
            "GET", f"/{number}/{{name}}", "A route", about="", replies={200: Reply("So.")}, **declared
        )(handler)
    app = FastAPI()
    app.include_router(room.router(OneCaller()))
    return TestClient(app)


async def tell_all(name: str):
    return PlainTextResponse(name)


async def fail(name: str):
    raise TetherError(name)


def test_a_handler_gets_what_it_names():
    async def handler(edge, caller, request, name: str):
        return PlainTextResponse(f"{type(edge).__name__} {caller.tenant_id} {request.method} {name}")

    client = client_of(({"scopes": (Scope.READ,)}, handler), ({}, tell_all))
    assert client.get("/v1/0/me").text == "OneCaller acme GET me"
    assert client.get("/v1/1/me").text == "me"


@pytest.mark.parametrize("scopes", [(Scope.SUBMIT,), (Scope.READ, Scope.SUBMIT)])
def test_every_scope_is_asked_for_before_the_handler(scopes):
    client = client_of(({"scopes": scopes}, fail))
    with pytest.raises(Forbidden):
        client.get("/v1/0/me")


def test_a_route_may_write_errors_in_its_own_form():
    client = client_of(
        ({"answer_error": written}, fail), ({"answer_error": written, "scopes": (Scope.ADMIN,)}, fail)
    )
    assert (client.get("/v1/0/me").status_code, client.get("/v1/0/me").text) == (418, "written: internal")
    assert client.get("/v1/1/me").text == "written: forbidden"


def test_every_operation_of_the_document_has_a_description():
    app = FastAPI()
    for room in ROOMS:
        app.include_router(room.router(OneCaller()))
    operations = {
        (method.upper(), path): operation
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    }
    assert len(operations) == len(ALL)
    for operation in operations.values():
        assert re.fullmatch(r"[A-Z0-9].*\.", operation["description"])
        assert "](" not in operation["description"], "a link of the documentation leads nowhere here"
    assert "until there is none" in operations["GET", "/v1/jobs"]["description"]


@pytest.mark.parametrize("route", ALL, ids=lambda route: f"{route.method} {route.path}")
def test_what_is_told_of_jobs_needs_a_key(route):
    assert bool(route.scopes) == route.path.startswith("/v1/")
    assert route.about
    assert route.summary


def test_no_route_is_declared_twice():
    places = [(route.method, route.path) for route in ALL]
    assert len(set(places)) == len(places)
