"""Frozen values as JSON and back, by their own fields: a field that is added to one travels without more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

_Value = TypeVar("_Value")


def value_to_json(value: object) -> dict[str, Any]:
    """A dataclass as an object of JSON: each field under its name, enums as their values."""
    # Loaded when used: a short program that reads no such value, as `tether submit`, starts sooner.
    import msgspec

    document = msgspec.to_builtins(value, enc_hook=_plain)
    assert isinstance(document, dict)
    return document


def value_from_json(kind: type[_Value], document: object) -> _Value:
    """The value that an object of JSON holds. Fields that ``kind`` does not know are left out, as a newer
    writer may add some.

    Raises:
      ValueError: A field is missing that has no default, or holds what it cannot. The message names it.
    """
    import msgspec

    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise NotImplementedError(f"values of type {type(value).__name__} have no form in JSON")
