"""Checks of the values in a parsed announcement. Each answers with the value, now of a known type.

``what`` names the field, for the error.
"""

from __future__ import annotations

import math
import re
from enum import StrEnum
from typing import Any, TypeVar

_LARGEST_NUMBER = 2**53 - 1
_Word = TypeVar("_Word", bound=StrEnum)


class WrongField(Exception):
    """Names the field that is wrong."""


def exactly(value: object, names: frozenset[str], what: str) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() != names:
        raise WrongField(what)
    return value


def text(value: object, form: re.Pattern[str], what: str) -> str:
    if not isinstance(value, str) or form.match(value) is None:
        raise WrongField(what)
    return value


def count(value: object, what: str) -> int:
    if type(value) is not int or not 0 <= value <= _LARGEST_NUMBER:
        raise WrongField(what)
    return value


def flag(value: object, what: str) -> bool:
    if not isinstance(value, bool):
        raise WrongField(what)
    return value


def rate(value: object, what: str) -> float:
    if type(value) is not float or not math.isfinite(value) or value < 0:
        raise WrongField(what)
    return value


def listed(value: object, most: int, what: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise WrongField(what)
    return value


def one_of(kind: type[_Word], value: object, what: str) -> _Word:
    found = kind._value2member_map_.get(value) if isinstance(value, str) else None
    if not isinstance(found, kind):
        raise WrongField(what)
    return found
