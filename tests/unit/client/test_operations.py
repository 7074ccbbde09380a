"""Methods of ports declared as operations: client, gateway and document follow from the declaration."""

from dataclasses import dataclass
from typing import Protocol

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from tether.client.http.ports import over_http_port
from tether.client.job_port import JobPort
from tether.client.model_port import ModelPort
from tether.client.operations import operation_of, over_http
from tether.errors import InvalidRequest, JobNotFound
from tether.gateway.keys.api_keys import Scope
from tether.gateway.keys.key_ring import Caller
from tether.gateway.routes import RoomRoutes

JOB_ID = "019ab0c1-7d5e-7aaa-8bbb-0123456789ab"


@dataclass(frozen=True)
class Shelf:
    """A shelf."""

    name: str
    books: int = 0


class ShelfPort(Protocol):
    @over_http("GET", "/v1/shelves")
    def shelves(self) -> list[Shelf]: ...

    @over_http("GET", "/v1/names")
    def names(self) -> list[str]: ...

    @over_http("GET", "/v1/shelves/{name}")
    def shelf(self, name: str) -> Shelf: ...


class Shelves:
    """A port with a shelf of each name that it is asked for."""

    def shelves(self):
        return [Shelf("a", 1), Shelf("b")]

    def names(self):
        return ["a", "b"]

    def shelf(self, name):
        return Shelf(name, 7)


class Edge:
    async def caller(self, request, scope):
        return Caller("acme", "key", frozenset({Scope.READ}))

    def backend(self, caller):
        return Shelves()

    async def call(self, function, *args, **kwargs):
        return function(*args, **kwargs)


@pytest.fixture
def app():
    room = RoomRoutes("shelves", port=lambda backend: backend)
    for function in (ShelfPort.shelves, ShelfPort.names, ShelfPort.shelf):
        room.serve(function, "Summary", about="", scopes=(Scope.READ,), text="It.")
    app = FastAPI()
    app.include_router(room.router(Edge()))
    return app


@pytest.mark.parametrize(
    ("function", "arguments"),
    [(ShelfPort.shelves, ()), (ShelfPort.names, ()), (ShelfPort.shelf, ("up & down?é",))],
)
def test_what_a_port_returns_comes_out_at_the_client(app, function, arguments):
    operation = operation_of(function)
    path, query = operation.address(*arguments)
    response = TestClient(app).request(operation.method, path, params=list(query))
    assert response.status_code == 200, response.text
    assert operation.value_in(response.json()) == getattr(Shelves(), operation.name)(*arguments)


def test_the_document_is_described_by_the_returned_type(app):
    schemas = app.openapi()["components"]["schemas"]
    assert schemas["ShelfDocument"]["properties"].keys() == {"name", "books"}
    assert schemas["ShelfListDocument"]["properties"]["data"]["items"] == {
        "$ref": "#/components/schemas/ShelfDocument"
    }
    assert schemas["StrListDocument"]["properties"]["data"]["items"] == {"type": "string"}


@pytest.mark.parametrize("document", [{}, {"data": 3}, {"data": [{"books": 1}]}, {"data": [{"name": 1}]}])
def test_a_document_of_another_form_is_no_value(document):
    with pytest.raises((KeyError, TypeError, ValueError)):
        operation_of(ShelfPort.shelves).value_in(document)


def test_an_id_that_is_none_is_not_sent():
    operation = operation_of(JobPort.status)
    assert operation.address(JOB_ID) == (f"/v1/jobs/{JOB_ID}", ())
    with pytest.raises(JobNotFound):
        operation.address("../../models")


@pytest.mark.parametrize("name", ["a/b", "/", "", ".", ".."])
def test_a_name_that_would_lead_to_another_address_is_not_sent(name):
    with pytest.raises(InvalidRequest, match="cannot be asked for over HTTP"):
        operation_of(ShelfPort.shelf).address(name)
    assert operation_of(ShelfPort.shelf).address("50% ü#?") == ("/v1/shelves/50%25%20%C3%BC%23%3F", ())


def test_a_method_that_is_neither_declared_nor_written_is_no_port_over_http():
    with pytest.raises(TypeError, match="submit is not declared"):
        over_http_port(JobPort)


def test_each_port_over_http_has_every_method_of_the_port():
    class ByHand:
        def submit(self, requests):
            return []

    for port, by_hand in ((JobPort, ByHand), (ModelPort, None)):
        carrier = over_http_port(port, by_hand)
        names = {name for name in dir(port) if callable(getattr(port, name)) and not name.startswith("_")}
        assert names <= set(dir(carrier))
        assert all(getattr(carrier, name).__doc__ or name == "submit" for name in names)
