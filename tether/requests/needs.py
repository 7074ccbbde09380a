"""What a job can ask of the pool that runs it: the rules of these fields, and how they go together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tether.requests.rules import Plain, Texts, shown

PLACE_NAME = r"^[a-z0-9-]{1,32}$"
"""What a region or a GPU class may be called: it becomes part of a pool's name."""

PREFERABLE = ("region", "gpu_class", "min_vram")
"""Needs that a job may prefer to have met rather than require."""

MAX_BYTES = 2**53

_PLACE = re.compile(PLACE_NAME.removesuffix("$") + r"\Z")
_UNITS = {
    "": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SIZE = re.compile(r"([0-9]{1,16}(?:\.[0-9]{1,6})?) ?([kmgt]?i?b)?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class PlaceName(Plain):
    """The name of a region or a GPU class; empty is any."""

    def problems(self, name: str, value: object) -> Iterator[str]:
        if not isinstance(value, str) or (value and not _PLACE.match(value)):
            yield f"{name}={shown(value)} is not a name of a to z, 0 to 9 and '-', at most 32 characters"

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "maxLength": 32, "pattern": r"^[a-z0-9-]*$"}


@dataclass(frozen=True, eq=False)
class MemorySize:
    """A number of bytes, or a text of a number and a unit: ``40GB`` is 40 * 10^9, ``40GiB`` is 40 * 2^30."""

    def problems(self, name: str, value: object) -> Iterator[str]:
        if _bytes_of(value) is None:
            yield (
                f"{name}={shown(value)} is not a number of bytes, or a size such as 40GB or 40GiB, at most "
                f"{MAX_BYTES} bytes"
            )

    def read(self, value: Any) -> int:
        size = _bytes_of(value)
        assert size is not None
        return size

    def to_json(self, value: Any) -> int:
        return int(value)

    def schema(self) -> dict[str, Any]:
        size = {
            "type": "string",
            "maxLength": 32,
            "pattern": r"^[0-9]{1,16}(\.[0-9]{1,6})? ?([kKmMgGtT]i?[bB])$",
        }
        return {"anyOf": [{"type": "integer", "minimum": 0, "maximum": MAX_BYTES}, size]}


@dataclass(frozen=True, eq=False)
class Flag(Plain):
    """True or false."""

    def problems(self, name: str, value: object) -> Iterator[str]:
        if not isinstance(value, bool):
            yield f"{name}={shown(value)} is neither true nor false"

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True, eq=False)
class NeedNames(Texts):
    """Some of :data:`PREFERABLE`, in any order; one name stands for a list of it."""

    max_count: int = len(PREFERABLE)
    max_characters: int = 32

    def problems(self, name: str, value: object) -> Iterator[str]:
        names = (value,) if isinstance(value, str) else value
        if not isinstance(names, list | tuple) or not all(each in PREFERABLE for each in names):
            yield f"{name}={shown(value)} is not a list of some of {', '.join(PREFERABLE)}"

    def read(self, value: Any) -> tuple[str, ...]:
        return tuple(sorted(set(super().read(value))))

    def schema(self) -> dict[str, Any]:
        word = {"type": "string", "enum": list(PREFERABLE)}
        return {"anyOf": [word, {"type": "array", "items": word}]}


def needs_problems(values: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield what of a request's needs does not go together: a field, and what is wrong with it.

    Args:
      names: What the client calls a field, where that is not its own name.
    """
    prefer = values.get("prefer", ())
    preferred = (prefer,) if isinstance(prefer, str) else prefer
    if isinstance(preferred, list | tuple):
        for need in PREFERABLE:
            if need in preferred and not values.get(need):
                theirs = names.get(need, need)
                yield (
                    "prefer",
                    f"prefer names {theirs}, which is not given: give {theirs}, or leave it out of prefer",
                )
    if values.get("any_version") is True and values.get("adapter"):
        yield (
            "any_version",
            "any_version and adapter are mutually exclusive: an adapter is one of a version of the model",
        )


def _bytes_of(value: object) -> int | None:
    """A size in bytes; None where it is none."""
    if isinstance(value, str):
        found = _SIZE.fullmatch(value.strip())
        if found is None:
            return None
        number, unit = found.groups()
        factor = _UNITS.get((unit or "").lower(), 1)
        value = int(float(number) * factor) if "." in number else int(number) * factor
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_BYTES:
        return None
    return value
