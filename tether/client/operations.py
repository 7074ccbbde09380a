"""Operations: methods of the client's ports that a gateway's routes answer, each declared once.

From the declaration above the method follow the client's call, the gateway's handler and the schema of the
document between them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, get_type_hints

from tether.client.documents import document_of_kind, json_bytes, value_of_kind
from tether.client.path_segments import path_segment
from tether.job_names import check_job_id

QueryPairs = Sequence[tuple[str, str]]

_Method = TypeVar("_Method", bound=Callable[..., Any])

_CHECKS: dict[str, Callable[[object], None]] = {"job_id": check_job_id}
"""What is checked of parameters in a path before anything is sent, by name."""


@dataclass(frozen=True)
class Operation:
    """A method of a port, and the route that answers it.

    Attributes:
      name: The method's.
      method: HTTP's.
      path: With the names of the method's parameters that it holds, in braces.
      function: The method as the port declares it.
      query: Writes the query from the parameters that the path does not hold; None where there are none.
      body: Writes the body from the same parameters; None where there is none.
      read: Makes the returned value of the document; None where that follows from the value's type.
    """

    name: str
    method: str
    path: str
    function: Callable[..., Any]
    query: Callable[..., QueryPairs] | None
    read: Callable[[Any], Any] | None
    body: Callable[..., dict[str, Any]] | None = None

    # Each is worked out once: calls are many, and signatures are slow to read.

    @cached_property
    def signature(self) -> inspect.Signature:
        """The method's."""
        return inspect.signature(self.function, eval_str=True)

    @cached_property
    def returns(self) -> Any:
        """The type of the value."""
        return get_type_hints(self.function)["return"]

    @cached_property
    def path_parameters(self) -> list[inspect.Parameter]:
        """The parameters that the path holds."""
        parameters = self.signature.parameters.values()
        return [parameter for parameter in parameters if f"{{{parameter.name}}}" in self.path]

    def address(self, *args: Any, **kwargs: Any) -> tuple[str, QueryPairs]:
        """Path and query of a call with these arguments.

        Raises:
          TetherError: An argument is invalid.
        """
        values = self._values(*args, **kwargs)
        in_path = {parameter.name: values.pop(parameter.name) for parameter in self.path_parameters}
        for name, value in in_path.items():
            if name in _CHECKS:
                _CHECKS[name](value)
        path = self.path.format(**{name: path_segment(str(value)) for name, value in in_path.items()})
        return path, self.query(**values) if self.query is not None else ()

    def content(self, *args: Any, **kwargs: Any) -> bytes | None:
        """The body of a call with these arguments; None where it has none.

        Raises:
          TetherError: An argument is invalid.
        """
        if self.body is None:
            return None
        values = self._values(*args, **kwargs)
        for parameter in self.path_parameters:
            del values[parameter.name]
        return json_bytes(self.body(**values))

    def _values(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        bound = self.signature.bind(None, *args, **kwargs)
        bound.apply_defaults()
        return dict(list(bound.arguments.items())[1:])

    def document_of(self, value: Any) -> dict[str, Any]:
        """The document that answers with a value."""
        return document_of_kind(self.returns, value)

    def value_in(self, document: Any) -> Any:
        """The value that a document holds.

        Raises:
          KeyError, TypeError, ValueError: It is none of this operation.
        """
        return self.read(document) if self.read is not None else value_of_kind(self.returns, document)


def over_http(
    method: str,
    path: str,
    *,
    query: Callable[..., QueryPairs] | None = None,
    read: Callable[[Any], Any] | None = None,
    body: Callable[..., dict[str, Any]] | None = None,
) -> Callable[[_Method], _Method]:
    """Declare the route that answers the method below; see :class:`Operation`."""

    def declared(function: _Method) -> _Method:
        operation = Operation(function.__name__, method, path, function, query, read, body)
        function.__dict__["operation"] = operation
        return function

    return declared


def operation_of(function: Callable[..., Any]) -> Operation:
    """The operation that a port's method was declared as.

    Raises:
      TypeError: It was not.
    """
    operation = getattr(function, "operation", None)
    if not isinstance(operation, Operation):
        raise TypeError(f"{function.__qualname__} is not declared with over_http")
    return operation
