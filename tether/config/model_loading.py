"""Reads the array of models from a file or a variable, and says all that is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError

from tether.config.models import MAX_MODELS, duplicates, model_problems
from tether.config.quoting import bare, shown_wrong
from tether.config.settings import MODELS, ModelSettings, adapter
from tether.config.types import expected, suggestion
from tether.errors import ConfigError

Place = Callable[[str], str]
"""Where a key such as ``models[0].name`` was set, for a message."""


def models_from_text(text: str) -> object:
    """What a variable with models holds.

    Raises:
      ConfigError: It is not JSON. The message does not repeat it: it may hold a password.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError("it is not JSON: write an array of objects, one for each model") from None


def read_models(items: object, place: Place, problems: list[str]) -> tuple[ModelSettings, ...]:
    """The models in ``items``; what is wrong with them is added to ``problems``."""
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        problems.append(f"{MODELS} ({place(MODELS)}): must be an array of tables, written as [[{MODELS}]]")
        return ()
    if len(items) > MAX_MODELS:
        problems.append(f"{MODELS} ({place(MODELS)}): there are more than {MAX_MODELS} models")
        return ()
    models = []
    places = []
    for number, item in enumerate(items):
        prefix = f"{MODELS}[{number}]"
        wrong = list(_problems(item))
        problems += [f"{_joined(prefix, key)} ({place(_joined(prefix, key))}): {text}" for key, text in wrong]
        if not wrong:
            models.append(ModelSettings.model_validate(item))
            places.append(prefix)
    for repeated, first in duplicates(models):
        model, where = models[repeated], places[repeated]
        problems.append(
            f"{where} ({place(where)}): name {model.name!r} with version {model.version!r} already exists "
            f"as {places[first]}; give one of them another version"
        )
    return tuple(models)


def _joined(prefix: str, key: str) -> str:
    return f"{prefix}.{key}" if key else prefix


def _problems(item: dict[str, Any]) -> Iterator[tuple[str, str]]:
    known = ModelSettings.model_fields
    values: dict[str, Any] = {
        key: info.get_default(call_default_factory=True)
        for key, info in known.items()
        if not info.is_required()
    }
    is_whole = True
    for key, value in item.items():
        if key not in known:
            is_whole = False
            yield bare(key), f"unknown key{suggestion(key, known)}"
            continue
        try:
            values[key] = adapter(f"{MODELS}.{key}").validate_python(value, strict=True)
        except ValidationError:
            is_whole = False
            yield key, f"{shown_wrong(known[key], value)} is not {expected(known[key])}"
    if "name" not in item:
        yield "", "the model has no name"
    elif is_whole:
        yield from model_problems(values)
