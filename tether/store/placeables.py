"""Envelopes and payloads of jobs as columns of their rows, under the names of their fields."""

from __future__ import annotations

from dataclasses import fields
from math import inf
from typing import get_type_hints

from tether.envelopes import Placeable
from tether.jobs import Priority
from tether.store.needs import needed_vram_of, needs_of
from tether.store.rows import AnyRow
from tether.store.schema import jobs

_NAMES = tuple(field.name for field in fields(Placeable))

PLACEABLE_COLUMNS = tuple(
    jobs.c.body.label("payload") if name == "payload" else jobs.c[name] for name in _NAMES
)
"""What :func:`placeable_of` reads."""


def placeable_columns(job: Placeable) -> dict[str, object]:
    """Values by column. The payload's column has had the name ``body`` from the first version on."""
    values: dict[str, object] = {name: getattr(job, name) for name in _NAMES}
    values["body"] = values.pop("payload")
    values["priority"] = job.priority.value
    values["any_version"] = int(job.any_version)
    values["needs"], values["needed_vram"] = needs_of(job), needed_vram_of(job)
    return values


_TYPES_BY_HINT: dict[object, tuple[type, ...]] = {int: (int,), bool: (int,), float: (float, int)}
_TYPES = tuple((name, _TYPES_BY_HINT.get(hint, (str,))) for name, hint in get_type_hints(Placeable).items())
"""By column: the types that its values may have."""


def placeable_of(row: AnyRow) -> Placeable:
    """The job of a row that has all of :data:`PLACEABLE_COLUMNS`.

    Raises:
      ValueError: A value has another type than its column, which SQLite allows, or is none that a job can
        have: what is made of the job after this cannot fail for its row.
    """
    values = {name: row._mapping[name] for name in _NAMES}
    for name, types in _TYPES:
        if type(values[name]) not in types:
            raise ValueError(f"{name} is {type(values[name]).__name__}, not {types[0].__name__}")
    if not 0 < values["weight"] < inf:
        raise ValueError(f"weight is {values['weight']}, and must be a number greater than 0")
    values["priority"] = Priority(values["priority"])
    values["any_version"] = values["any_version"] != 0
    return Placeable(**values)
