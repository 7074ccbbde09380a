"""How what stands in a file or a variable is repeated in a message: quoted, cut short, without secrets."""

from __future__ import annotations

import re

from pydantic.fields import FieldInfo

from tether.config.types import is_secret
from tether.telemetry.redaction import scrub

_MAX_CHARACTERS = 80


def shown_wrong(info: FieldInfo, value: object) -> str:
    """A value that a field does not take."""
    if is_secret(info):
        return "the value (not shown, it may contain a password)"
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "an array"
    return quoted(value)


def quoted(text: object) -> str:
    shown = scrub(repr(text))
    return shown if len(shown) <= _MAX_CHARACTERS else f"{shown[:_MAX_CHARACTERS]}…"


def bare(name: str) -> str:
    """A name as it is, or quoted and cut short where it is not an ordinary one."""
    return name if re.fullmatch(r"[\w.-]{1,80}", name, re.ASCII) else quoted(name)
