"""JSON objects in the bodies of requests: pure, and never long without giving other threads their turn.

Python's own parser runs in C, and keeps all other threads waiting while it does: a second for the million
empty arrays that 3 MB can hold. What may have many values is parsed value by value here instead, which takes
longer in all, and never long at a stretch.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from tether.errors import MalformedBody, RequestTooLarge

MAX_VALUES = 100_000
"""Values of a body, of all kinds, those inside others included."""

MAX_DIGITS = 100
"""Characters of a number. The time that a long one takes grows with the square of its length."""

MAX_AT_ONCE = 10_000
"""Values that the parser in C may be given: it takes 15 ms for them at most."""

_skip_white_space = re.compile(r"[ \t\n\r]*+").match


def parse_json(body: bytes) -> dict[str, Any]:
    """Return the object that the bytes hold.

    Raises:
      MalformedBody: They are no JSON object in UTF-8.
      RequestTooLarge: It has more values than a body may have.
    """
    if not body.strip():
        raise MalformedBody(
            'the body is empty: send a JSON object, such as {"model": "...", "prompt": "..."} for a job, '
            "or {} where no field is needed"
        )
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise MalformedBody(f"the body is not UTF-8: byte {error.start} is invalid") from None
    # Each value but the first follows one of these, which may stand in texts as well.
    has_many = text.count(",") + text.count("[") + text.count(":") > MAX_AT_ONCE
    try:
        value = parse_by_values(text) if has_many else _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise MalformedBody(
            f"the body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from None
    except RecursionError:
        raise MalformedBody("the body cannot be parsed as JSON: it is nested too deeply") from None
    if not isinstance(value, dict):
        raise MalformedBody(f"the body is JSON of type {type(value).__name__}, not an object")
    return value


def parse_by_values(text: str) -> Any:
    """Return the value that a text holds. Other threads have their turn after each value in it.

    Raises:
      JSONDecodeError: It is no JSON.
      MalformedBody: It is JSON that a body must not have.
      RequestTooLarge: It has more values than a body may have.
      RecursionError: It is nested too deeply.
    """
    parsing = _Parsing(text)
    value, end = parsing.value(_past_white_space(text, 0))
    end = _past_white_space(text, end)
    if end != len(text):
        raise json.JSONDecodeError("Extra data", text, end)
    return value


class _Parsing:
    def __init__(self, text: str) -> None:
        self._text = text
        self._count = 0

    def value(self, start: int) -> tuple[Any, int]:
        """Return the value that begins here, and where it ends."""
        self._count += 1
        if self._count > MAX_VALUES:
            raise RequestTooLarge(
                f"the body has more than {MAX_VALUES} JSON values: divide it into several requests"
            )
        first = self._text[start : start + 1]
        if first == "{":
            return self._object(start + 1)
        if first == "[":
            return self._array(start + 1)
        return _DECODER.raw_decode(self._text, start)

    def _array(self, start: int) -> tuple[list[Any], int]:
        values: list[Any] = []
        at = _past_white_space(self._text, start)
        if self._text[at : at + 1] == "]":
            return values, at + 1
        while True:
            value, at = self.value(at)
            values.append(value)
            at, has_more = self._after_element(at, "]")
            if not has_more:
                return values, at

    def _object(self, start: int) -> tuple[dict[str, Any], int]:
        fields: dict[str, Any] = {}
        at = _past_white_space(self._text, start)
        if self._text[at : at + 1] == "}":
            return fields, at + 1
        while True:
            if self._text[at : at + 1] != '"':
                raise json.JSONDecodeError(
                    "Expecting property name enclosed in double quotes", self._text, at
                )
            name, at = _DECODER.raw_decode(self._text, at)
            if name in fields:
                raise _given_twice(name)
            at = _past_white_space(self._text, at)
            if self._text[at : at + 1] != ":":
                raise json.JSONDecodeError("Expecting ':' delimiter", self._text, at)
            fields[name], at = self.value(_past_white_space(self._text, at + 1))
            at, has_more = self._after_element(at, "}")
            if not has_more:
                return fields, at

    def _after_element(self, at: int, closing: str) -> tuple[int, bool]:
        """Return where it goes on after an element that ends here, and whether another one follows."""
        at = _past_white_space(self._text, at)
        next_character = self._text[at : at + 1]
        if next_character == closing:
            return at + 1, False
        if next_character != ",":
            raise json.JSONDecodeError("Expecting ',' delimiter", self._text, at)
        return _past_white_space(self._text, at + 1), True


def _past_white_space(text: str, start: int) -> int:
    if text[start : start + 1] not in " \t\n\r":
        return start
    match = _skip_white_space(text, start)
    assert match is not None
    return match.end()


def _integer(text: str) -> int:
    return int(_of_bounded_length(text))


def _fraction(text: str) -> float:
    return float(_of_bounded_length(text))


def _of_bounded_length(text: str) -> str:
    if len(text) > MAX_DIGITS:
        raise MalformedBody(
            f"the body has a number that is too long: {text[:20]}… has {len(text)} characters; the maximum "
            f"is {MAX_DIGITS}"
        )
    return text


def _no_constant(name: str) -> Any:
    raise MalformedBody(f"the body is not valid JSON: {name} is not a JSON number")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise _given_twice(name)
    return fields


def _given_twice(name: str) -> MalformedBody:
    return MalformedBody(f"duplicate field {name[:80]!r} in the body: give it once")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_each_once, parse_int=_integer, parse_float=_fraction, parse_constant=_no_constant
)
