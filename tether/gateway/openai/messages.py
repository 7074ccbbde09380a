"""Reads messages in the form of OpenAI's: pure."""

from __future__ import annotations

from typing import Any

from tether.requests.checking import Problem
from tether.requests.rules import shown

_ROLES = {"developer": "system"}
_TOOL_ROLES = ("tool", "function")
_IGNORED = ("name", "annotations")

_OF_REASONING = (
    *("reasoning", "reasoning_content", "reasoning_details", "reasoning_text", "reasoning_opaque"),
    *("thinking", "thinking_blocks", "provider_specific_fields"),
)
"""What clients send back of an answer of a model that reasons. Models do not read their former reasoning."""

_PARTS_OF_REASONING = ("reasoning", "thinking", "redacted_thinking")


def read_message(number: int, value: object, problems: list[Problem], ignored: list[str] | None) -> object:
    """Return a message in our form. What cannot be one is left as it is: all requests are checked for that.

    Args:
      number: Its place among the others.
      problems: Receives what is wrong with it.
      ignored: Receives the unknown fields, which are ignored; None where they are refused.
    """
    if not isinstance(value, dict):
        return value
    place = f"messages[{number}]"
    role, content = value.get("role"), value.get("content")
    if role in _TOOL_ROLES:
        problems.append(("messages", f"{place}.role={role!r}: tools are not supported"))
        role = "user"
    is_answer = role == "assistant"
    for name, one in value.items():
        if name in ("role", "content", *_IGNORED) or one is None or one == []:
            continue
        if is_answer and (name in _OF_REASONING or name == "refusal"):
            continue
        if ignored is not None and name not in ("tool_calls", "function_call", "audio"):
            ignored.append(f"{place}.{name}")
            continue
        problems.append(("messages", f"{place} has a field {name[:80]!r}, which is not supported"))
    if is_answer and content is None:
        refusal = value.get("refusal")
        content = refusal if isinstance(refusal, str) else ""
    if isinstance(content, list):
        content = _text_of(place, content, problems, is_answer=is_answer)
    return {"role": _ROLES.get(role, role) if isinstance(role, str) else role, "content": content}


def _text_of(place: str, parts: list[Any], problems: list[Problem], *, is_answer: bool) -> str:
    """The text of a content in parts."""
    texts: list[str] = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if is_answer and kind in _PARTS_OF_REASONING:
            continue
        key = "refusal" if is_answer and kind == "refusal" else "text"
        text = part.get(key) if isinstance(part, dict) else None
        if kind != key or not isinstance(text, str):
            told = f"of type {shown(kind)}" if kind else "without a type"
            problems.append(("messages", f"{place}.content has a part {told}: only text is supported"))
            break
        texts.append(text)
    return "".join(texts)
