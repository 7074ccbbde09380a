"""The texts in a client's variables of a chat template: pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any


def texts_in(value: object) -> Iterator[str]:
    """Yield every text in a value of JSON, names of its objects' fields included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield key
            yield from texts_in(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from texts_in(each)


def variable_texts(variables: Mapping[str, Any]) -> list[str]:
    """Return the texts that a template could write: their names are the template's own words."""
    return [text for value in variables.values() for text in texts_in(value)]


def with_texts(variables: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """Return the variables with each text in them changed."""
    return {name: _changed(value, change) for name, value in variables.items()}


def enclosed(text: str, marker: str) -> str:
    """Return a text between markers. White space at its ends stays outside, where templates remove it."""
    core = text.strip()
    return text.replace(core, f"{marker}{core}{marker}", 1) if core else text


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(key): _changed(each, change) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_changed(each, change) for each in value]
    return value
