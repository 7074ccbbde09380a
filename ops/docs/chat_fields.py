"""The table of the fields of chat completions: what becomes of each, as the gateway's code has it."""

from __future__ import annotations

from tether.client.documents import json_bytes
from tether.gateway.openai.bodies import known_fields
from tether.gateway.openai.foreign_fields import HARMLESS, UNSUPPORTED, is_ignorable

SOURCE = "tether/gateway/openai/foreign_fields.py"


def chat_fields_table() -> str:
    """Return a row for each field that a request may have."""
    lines = ["| field | what becomes of it |", "|---|---|"]
    lines += [f"| `{name}` | {_fate(name)} |" for name in sorted(set(known_fields()))]
    return "".join(f"{line}\n" for line in lines)


def _fate(name: str) -> str:
    if name in HARMLESS:
        return "ignored: it does not affect the completion"
    if name not in UNSUPPORTED:
        return "honoured"
    nothing = " or ".join(f"`{json_bytes(value).decode()}`" for value in UNSUPPORTED[name])
    allowed = f", except {nothing}" if nothing else ""
    return f"refused{allowed}" + ("; ignored with the setting" if is_ignorable(name) else "")
