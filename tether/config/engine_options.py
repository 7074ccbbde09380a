"""What an engine's table ``[models.options]`` may hold: each engine declares that itself."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from functools import cache

from pydantic import ValidationError

from tether.config.types import Section, expected, suggestion

ENGINES = "tether_workers.engines"
"""The package that holds one package for each engine."""


@cache
def option_schema(engine: str) -> type[Section]:
    """The options of an engine.

    They are the section ``OPTIONS`` in the module ``options`` of the engine's package. Every option has a
    default, and the module imports nothing heavy. It is found by the engine's name, when a model with this
    engine is read: nothing else in the configuration knows of engines.
    """
    schema = importlib.import_module(f"{ENGINES}.{engine}.options").OPTIONS
    assert isinstance(schema, type)
    assert issubclass(schema, Section)
    return schema


def option_problems(engine: str, options: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """What is wrong with an engine's options: the key, and what is wrong with it."""
    schema = option_schema(engine)
    known = schema.model_fields
    for name, value in options.items():
        if name not in known:
            meant = suggestion(name, known) or f"; available: {', '.join(known)}"
            yield "options", f"the {engine} engine has no option {name[:80]!r}{meant}"
            continue
        try:
            schema.model_validate({name: value}, strict=True)
        except ValidationError:
            yield f"options.{name}", f"is not {expected(known[name])}"
