"""Checks of the values in a parsed command. Each answers with the value, now of a known type.

``what`` names the field, for the error.
"""

from __future__ import annotations

import re
from typing import Any

from tether.discovery.announcements.presence import MAX_SAFE_INTEGER


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
    if type(value) is not int or not 0 <= value <= MAX_SAFE_INTEGER:
        raise WrongField(what)
    return value
