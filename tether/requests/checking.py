"""Checks what a client asks for: pure, with a message for each thing that is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tether.errors import InvalidRequest
from tether.requests import fields
from tether.requests.fields import JobRequest
from tether.requests.table import DELAYS

MAX_NAMED = 10
"""Unknown fields that a message names."""

MAX_GUESSED = 3
"""Unknown fields for which a message says what was meant: to look for that takes long, also for one of the
thousand jobs of a batch."""


def read_request(values: Mapping[str, Any], *, also: Sequence[str] = ()) -> JobRequest:
    """Return the request of plain values. Delays are no such values: they are times by now.

    Args:
      also: Fields that the caller knows beside these, to be named where one is mistyped.

    Raises:
      InvalidRequest: Fields are missing, unknown, of wrong types or out of range. The message names all.
    """
    problems = list(_problems(values, also))
    if problems:
        raise InvalidRequest(joined(problems))
    return fields.TABLE.make(values)


def joined(problems: Sequence[str]) -> str:
    """Return one message of all problems."""
    return "; ".join(problems) if len(problems) == 1 else f"{len(problems)} problems: " + "; ".join(problems)


def unknown_problems(names: Sequence[str], known: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield unknown fields, each with what is wrong; how many more there are comes with an empty name.

    Args:
      names: The unknown fields.
      known: All that could have been meant.
    """
    for place, name in enumerate(names[:MAX_NAMED]):
        guesses = known if place < MAX_GUESSED else ()
        near = difflib.get_close_matches(str(name)[:100], guesses, n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]}?" if near else ""
        yield str(name)[:80], f"unknown field {str(name)[:80]!r}{hint}"
    if len(names) > MAX_NAMED:
        yield "", f"and {len(names) - MAX_NAMED} more unknown fields"


def _problems(values: Mapping[str, Any], also: Sequence[str]) -> Iterator[str]:
    known = fields.TABLE.fields
    unknown = [name for name in values if name not in known or name in DELAYS]
    if unknown:
        names = [name for name in known if name not in DELAYS]
        yield from (problem for _, problem in unknown_problems(unknown, (*names, *also)))
    if not values.get("model"):
        yield "model is missing or empty"
    if "messages" not in values and not values.get("prompt"):
        yield "prompt is missing or empty"
    if "messages" in values and "prompt" in values:
        yield "prompt and messages are mutually exclusive: give only one"
    for name, value in values.items():
        if name in known and name not in DELAYS:
            yield from known[name].rule.problems(name, value)
