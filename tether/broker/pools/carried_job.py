"""The fields that a job carries through Redis, from its placement to the worker that draws it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from tether.ids import JobId, PoolName, TenantId


@dataclass(frozen=True, kw_only=True)
class CarriedJob:
    """Fields of the job's hash under these names: placing writes them, drawing reads them.

    A new field is one line here. It needs a default, for hashes that older programs have written.

    Attributes:
      job_id: The job's id, which is in the hash's key.
      pool: The pool in which it waits, or was drawn.
      tenant: The job's tenant.
      deadline: Milliseconds since the epoch by Redis's clock; 0 is none.
      body: The payload, in JSON.
      options: Options of its Dramatiq message, including the trace context, in JSON.
      began_in: The pool in which the tokens that it has were begun, in an earlier dispatch; empty where there
        was none, or that is forgotten. Redis notes it.
    """

    job_id: JobId
    pool: PoolName
    tenant: TenantId
    deadline: int
    body: bytes
    options: bytes = b"{}"
    began_in: str = ""


def _text(value: bytes) -> str:
    return value.decode()


def _same(value: bytes) -> bytes:
    return value


_READERS: dict[object, Callable[[bytes], Any]] = {str: _text, int: int, bytes: _same}


def names_of(kind: type[CarriedJob], but: Iterable[str]) -> tuple[str, ...]:
    """Names of the fields of ``kind``, but for some."""
    left_out = frozenset(but)
    return tuple(field.name for field in dataclasses.fields(kind) if field.name not in left_out)


class FieldReader:
    """Reads fields of ``kind`` from the texts that a hash holds."""

    def __init__(self, kind: type[CarriedJob], but: Iterable[str]) -> None:
        """
        Args:
          kind: Whose fields.
          but: Those that are no fields of the hash.

        Raises:
          KeyError: A field is of a type that is not carried: texts, integers and bytes are.
        """
        self.names = names_of(kind, but)
        types = get_type_hints(kind)
        self._readers = [
            (name, _READERS[getattr(types[name], "__supertype__", types[name])]) for name in self.names
        ]

    def read(self, values: Sequence[bytes | None]) -> dict[str, Any]:
        """Fields by name, from values in the order of ``names``; those that the hash lacks are left out.

        Raises:
          ValueError: A value is none of its field's type, or they are not as many as the names.
        """
        return {
            name: reader(value)
            for (name, reader), value in zip(self._readers, values, strict=True)
            if value is not None
        }
