"""What values a field of a job request may have: one rule for its check, its form in JSON and its schema.

Rules are pure. They check a value's form in JSON, and the form that programs use beside it: a tuple for a
list, a :class:`Message` for its object. No two rules are ever compared, so no class of them is
made for that at import.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

PRINTABLE = r"^[ -~]*$"
"""Schemas' pattern of printable text. Other scripts than Latin are accepted too, if they can be printed."""

WORD = r"^[A-Za-z0-9_]+$"
_WORD = re.compile(r"[A-Za-z0-9_]+")

ROLES = ("system", "user", "assistant")
"""Who can have said a message."""


@dataclass(frozen=True)
class Message:
    """One message of a conversation.

    Attributes:
      role: One of :data:`ROLES`.
      content: Its text.
    """

    role: str
    content: str


class Rule(Protocol):
    """The values that a field may have."""

    def problems(self, name: str, value: object) -> Iterator[str]:
        """Yield what is wrong with the value of the field with this name."""

    def read(self, value: Any) -> Any:
        """Return a value that was checked as programs use it."""

    def to_json(self, value: Any) -> Any:
        """Return a value as it is written in JSON."""

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of its form in JSON."""


class Plain:
    """What programs use is the form in JSON too."""

    def read(self, value: Any) -> Any:
        return value

    def to_json(self, value: Any) -> Any:
        return value


@dataclass(frozen=True, eq=False)
class Text(Plain):
    """A text.

    Attributes:
      max_bytes: Maximum length as UTF-8.
      max_characters: Maximum length in characters, in its place.
      is_printable: Whether all of it must be printable.
      is_required: Whether it must not be empty. Only schemas say so: what is missing depends on other fields.
    """

    max_bytes: int = 0
    max_characters: int = 0
    is_printable: bool = False
    is_required: bool = False

    def problems(self, name: str, value: object) -> Iterator[str]:
        if not isinstance(value, str):
            yield f"{name} is of type {type(value).__name__}, not a string"
            return
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            yield f"{name} contains an unpaired surrogate: decode it as UTF-8 first"
            return
        is_too_long = len(value) > self.max_characters if self.max_characters else size > self.max_bytes
        if not self.is_printable:
            if is_too_long:
                yield f"{name} has {size} bytes; the maximum is {self.max_bytes}"
        elif is_too_long or not value.isprintable():
            limit = f"{self.max_characters} characters" if self.max_characters else f"{self.max_bytes} bytes"
            yield f"{name} has more than {limit}, or unprintable characters"

    def schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "string", "maxLength": self.max_bytes or self.max_characters}
        if self.is_required:
            schema["minLength"] = 1
        if self.is_printable:
            schema["pattern"] = PRINTABLE
        return schema


@dataclass(frozen=True, eq=False)
class Whole(Plain):
    """An integer.

    Attributes:
      minimum, maximum: Its bounds; both are allowed.
      words: What it is, for messages.
    """

    minimum: int
    maximum: int
    words: str = ""

    def problems(self, name: str, value: object) -> Iterator[str]:
        if not isinstance(value, int) or isinstance(value, bool) or not self.minimum <= value <= self.maximum:
            words = self.words or f"an integer from {self.minimum} to {self.maximum}"
            yield f"{name}={shown(value)} is not {words}"

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}


@dataclass(frozen=True, eq=False)
class Number(Plain):
    """A finite number.

    Attributes:
      minimum, maximum: Its bounds; the maximum is allowed.
      is_above: Whether the minimum itself is not allowed.
    """

    minimum: float
    maximum: float
    is_above: bool = False

    def problems(self, name: str, value: object) -> Iterator[str]:
        if (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and self.minimum <= value <= self.maximum
            and math.isfinite(value)
            and not (self.is_above and value == self.minimum)
        ):
            return
        words = (
            f"a number greater than {self.minimum:g} and at most {self.maximum:g}"
            if self.is_above
            else f"a number from {self.minimum:g} to {self.maximum:g}"
        )
        yield f"{name}={shown(value)} is not {words}"

    def schema(self) -> dict[str, Any]:
        least = "exclusiveMinimum" if self.is_above else "minimum"
        return {"type": "number", least: self.minimum, "maximum": self.maximum}


@dataclass(frozen=True, eq=False)
class Choice:
    """A value of an enumeration."""

    kind: type[StrEnum]

    def problems(self, name: str, value: object) -> Iterator[str]:
        if not isinstance(value, str) or value not in self.kind.__members__.values():
            values = tuple(self.kind)
            yield f"{name}={shown(value)} is not {', '.join(values[:-1])} or {values[-1]}"

    def read(self, value: Any) -> StrEnum:
        return self.kind(value)

    def to_json(self, value: Any) -> Any:
        return str(value)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": [value.value for value in self.kind]}


@dataclass(frozen=True, eq=False)
class Texts:
    """A list of texts that are not empty; one text stands for a list of it."""

    max_count: int
    max_characters: int

    def problems(self, name: str, value: object) -> Iterator[str]:
        texts = (value,) if isinstance(value, str) else value
        if not isinstance(texts, list | tuple) or len(texts) > self.max_count:
            yield f"{name} is not a string or a list of at most {self.max_count} strings"
        elif not all(
            isinstance(text, str) and 0 < len(text) <= self.max_characters and is_text(text) for text in texts
        ):
            yield f"{name} contains something other than strings of 1 to {self.max_characters} characters"

    def read(self, value: Any) -> tuple[str, ...]:
        return (value,) if isinstance(value, str) else tuple(value)

    def to_json(self, value: Any) -> list[str]:
        return list(value)

    def schema(self) -> dict[str, Any]:
        text = {"type": "string", "minLength": 1, "maxLength": self.max_characters}
        return {"anyOf": [text, {"type": "array", "items": text, "maxItems": self.max_count}]}


@dataclass(frozen=True, eq=False)
class Words(Texts):
    """A list of words of ASCII letters, digits and ``_``; one word stands for a list of it."""

    def problems(self, name: str, value: object) -> Iterator[str]:
        problems = list(super().problems(name, value))
        yield from problems
        words = (value,) if isinstance(value, str) else value
        if not problems and isinstance(words, list | tuple) and not all(map(_WORD.fullmatch, words)):
            yield f"{name} contains something other than words of letters, digits and '_'"

    def schema(self) -> dict[str, Any]:
        word = {"type": "string", "minLength": 1, "maxLength": self.max_characters, "pattern": WORD}
        return {"anyOf": [word, {"type": "array", "items": word, "maxItems": self.max_count}]}


@dataclass(frozen=True, eq=False)
class NamedTexts:
    """Texts by name. No name is empty or has ``=`` in it."""

    max_count: int
    max_characters: int

    def problems(self, name: str, value: object) -> Iterator[str]:
        texts = {} if value is None else value
        if not isinstance(texts, Mapping) or len(texts) > self.max_count:
            yield f"{name} is not an object of at most {self.max_count} strings"
        elif not all(
            isinstance(text, str) and len(text) <= self.max_characters and is_text(text) and "\0" not in text
            for pair in texts.items()
            for text in pair
        ):
            yield f"{name} contains something other than strings of at most {self.max_characters} characters"
        elif any("=" in key or not key for key in texts):
            yield (
                f"{name} has a name that is empty or contains '=', which the filter name=value cannot express"
            )

    def read(self, value: Any) -> dict[str, str]:
        return dict(value or {})

    def to_json(self, value: Any) -> dict[str, str]:
        return dict(value)

    def schema(self) -> dict[str, Any]:
        text = {"type": "string", "maxLength": self.max_characters, "pattern": r"^[^\x00]*$"}
        return {
            "type": "object",
            "propertyNames": {**text, "minLength": 1, "pattern": r"^[^\x00=]*$"},
            "additionalProperties": text,
            "maxProperties": self.max_count,
        }


@dataclass(frozen=True, eq=False)
class Conversation:
    """A list of messages, which is not empty.

    Attributes:
      max_bytes: Maximum length of their texts together, as UTF-8.
    """

    max_count: int
    max_bytes: int

    def problems(self, name: str, value: object) -> Iterator[str]:
        if not isinstance(value, list | tuple) or not 1 <= len(value) <= self.max_count:
            yield f"{name} is not a list of 1 to {self.max_count} messages"
            return
        size = 0
        for number, message in enumerate(value):
            problem, message_bytes = _look_at_message(message)
            if problem:
                # The first says enough: a list of many would say the same of each.
                yield f"{name}[{number}]{problem}"
                return
            size += message_bytes
        if size > self.max_bytes:
            yield f"{name} have {size} bytes in total; the maximum is {self.max_bytes}"

    def read(self, value: Any) -> tuple[Message, ...]:
        return tuple(
            message if isinstance(message, Message) else Message(message["role"], message["content"])
            for message in value
        )

    def to_json(self, value: Any) -> list[dict[str, str]]:
        return [{"role": message.role, "content": message.content} for message in value]

    def schema(self) -> dict[str, Any]:
        message = {
            "type": "object",
            "description": "One message of a conversation.",
            "properties": {
                "role": {"type": "string", "enum": list(ROLES)},
                "content": {"type": "string", "maxLength": self.max_bytes},
            },
            "required": ["role", "content"],
            "additionalProperties": False,
        }
        return {"type": "array", "items": message, "minItems": 1, "maxItems": self.max_count}


def _look_at_message(message: object) -> tuple[str, int]:
    """Return what is wrong with a message, and the bytes of its text."""
    if isinstance(message, Message):
        message = {"role": message.role, "content": message.content}
    if not isinstance(message, Mapping):
        return (
            f' is of type {type(message).__name__}, not an object like {{"role": "user", "content": "…"}}',
            0,
        )
    others = [name for name in message if name not in ("role", "content")]
    if others:
        return f" has an unknown field {str(others[0])[:80]!r}; the fields are role and content", 0
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        return f".role={shown(role)} is not one of {', '.join(ROLES)}", 0
    if not isinstance(content, str):
        return f".content is of type {type(content).__name__}, not a string", 0
    if not is_text(content):
        return ".content contains an unpaired surrogate: decode it as UTF-8 first", 0
    return "", len(content.encode())


def is_text(text: str) -> bool:
    """Return whether it can be written as UTF-8: half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_MAX_SHOWN = 80


def shown(value: object) -> str:
    """Return a value as messages show it: never long, and never cut in the middle of a list or an object."""
    if isinstance(value, str) and len(value) > _MAX_SHOWN:
        return f"{value[:_MAX_SHOWN]!r}…"
    if isinstance(value, list | tuple | Mapping):
        # Its text is only made where it is sure to be short.
        text = repr(value) if len(value) <= 3 and not any(map(_is_deep, _values_of(value))) else ""
        if not 0 < len(text) <= _MAX_SHOWN:
            count = (
                f"{len(value)} {'field' if isinstance(value, Mapping) else 'item'}{'s' * (len(value) != 1)}"
            )
            return f"an object of {count}" if isinstance(value, Mapping) else f"a list of {count}"
        return text
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def _values_of(value: list[Any] | tuple[Any, ...] | Mapping[Any, Any]) -> Iterator[object]:
    if isinstance(value, Mapping):
        yield from value
        yield from value.values()
    else:
        yield from value


def _is_deep(value: object) -> bool:
    return isinstance(value, list | tuple | Mapping) or (isinstance(value, str) and len(value) > _MAX_SHOWN)
