"""The JSON schema of a job request, as the table of fields says it."""

from __future__ import annotations

from typing import Any

from tether.requests import fields
from tether.requests.table import DELAYS, Field

_WITHOUT_DEFAULT = ("model", "prompt", "messages", *DELAYS)
"""One of them must be given, or what is not given is another thing than any value."""


def field_schema(each: Field) -> dict[str, Any]:
    """Return the schema of a field, with its description, without a default."""
    return {**each.asked_rule.schema(), "description": each.about.description}


def request_schema() -> dict[str, Any]:
    """Return the schema of a submission's body: one object, closed, with a prompt or with messages."""
    return {
        "type": "object",
        "properties": {name: _with_default(each) for name, each in fields.TABLE.fields.items()},
        "required": ["model"],
        "oneOf": [{"required": ["prompt"]}, {"required": ["messages"]}],
        "additionalProperties": False,
    }


def _with_default(each: Field) -> dict[str, Any]:
    if each.name in _WITHOUT_DEFAULT:
        return field_schema(each)
    return {**field_schema(each), "default": each.rule.to_json(each.default)}
