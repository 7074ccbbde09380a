"""Ports over HTTP, made from the declarations of their methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tether.client.http.calls import Call, HttpCalls
from tether.client.http.responses import read
from tether.client.operations import Operation, operation_of


class HttpPort:
    """What the methods of a port stand on: the calls to a client's gateway."""

    def __init__(self, calls: HttpCalls) -> None:
        self._calls = calls

    def call(self, operation: Operation, *args: Any, **kwargs: Any) -> Any:
        """The value that an operation returns. Blocks.

        Raises:
          TetherError: An argument is invalid, the call failed, or the document is none that is known.
        """
        path, query = operation.address(*args, **kwargs)
        call = Call(operation.method, path, query, operation.content(*args, **kwargs))
        document = self._calls.answer(call)
        return read(operation.value_in, document, self._calls.place)


def over_http_port(port: type[Any], by_hand: type[Any] | None = None, *, under: str = "") -> type[HttpPort]:
    """A port's class over HTTP: each of its methods is that of ``by_hand``, or what its declaration says.

    Args:
      by_hand: A class that is made of the calls too; None where all methods are declared.
      under: What the paths begin with in place of ``/v1``; empty where they are as declared.

    Raises:
      TypeError: A method is neither written nor declared.
    """
    declared = {
        name: _calling(_moved(operation_of(getattr(port, name)), under))
        for name in dir(port)
        if not name.startswith("_") and callable(getattr(port, name)) and not hasattr(by_hand, name)
    }
    bases = (HttpPort,) if by_hand is None else (by_hand, HttpPort)
    return type(f"Http{port.__name__}", bases, declared)


def _moved(operation: Operation, under: str) -> Operation:
    return replace(operation, path=under + operation.path.removeprefix("/v1")) if under else operation


def _calling(operation: Operation) -> Callable[..., Any]:
    def method(self: HttpPort, *args: Any, **kwargs: Any) -> Any:
        return self.call(operation, *args, **kwargs)

    method.__name__ = operation.name
    method.__doc__ = operation.function.__doc__
    return method
