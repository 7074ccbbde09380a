"""Checks what a client asks for: pure, with a message for each thing that is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tether.errors import InvalidRequest
from tether.requests import fields
from tether.requests.fields import JobRequest
from tether.requests.needs import needs_problems
from tether.requests.table import DELAYS

MAX_NAMED = 10
"""Unknown fields that a message names."""

MAX_GUESSED = 3
"""Unknown fields for which a message says what was meant: to look for that takes long, also for one of the
thousand jobs of a batch."""


Problem = tuple[str, str]
"""A field, and what is wrong with it; the field is empty where there is no single one."""


def read_request(
    values: Mapping[str, Any], *, also: Sequence[str] = (), names: Mapping[str, str] | None = None
) -> JobRequest:
    """Return the request of plain values. Delays are no such values: they are times by now.

    Args:
      also: Fields that the caller knows beside these, to be named where one is mistyped.
      names: What the client calls a field, where that is not its own name.

    Raises:
      InvalidRequest: Fields are missing, unknown, of wrong types or out of range. The message names all.
    """
    problems = list(_problems(values, also, names or {}))
    if problems:
        raise refusal_of(problems, joined([text for _, text in problems]))
    return fields.TABLE.make(values)


def refusal_of(problems: Sequence[Problem], text: str) -> InvalidRequest:
    """Return the error of these problems, with the first field that is named."""
    error = InvalidRequest(text)
    error.param = next((name for name, _ in problems if name), None)
    return error


def joined(problems: Sequence[str]) -> str:
    """Return one message of all problems."""
    return "; ".join(problems) if len(problems) == 1 else f"{len(problems)} problems: " + "; ".join(problems)


def unknown_problems(names: Sequence[str], known: Sequence[str]) -> Iterator[Problem]:
    """Yield unknown fields, each with what is wrong; how many more there are comes with an empty name.

    Args:
      names: The unknown fields.
      known: All that could have been meant.
    """
    # Loaded when used: most requests have no such field.
    import difflib

    for place, name in enumerate(names[:MAX_NAMED]):
        guesses = known if place < MAX_GUESSED else ()
        near = difflib.get_close_matches(str(name)[:100], guesses, n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]}?" if near else ""
        yield str(name)[:80], f"unknown field {str(name)[:80]!r}{hint}"
    if len(names) > MAX_NAMED:
        yield "", f"and {len(names) - MAX_NAMED} more unknown fields"


def _problems(values: Mapping[str, Any], also: Sequence[str], names: Mapping[str, str]) -> Iterator[Problem]:
    known = fields.TABLE.fields
    unknown = [name for name in values if name not in known or name in DELAYS]
    if unknown:
        all_known = [name for name in known if name not in DELAYS]
        yield from unknown_problems(unknown, (*all_known, *also))
    if not values.get("model"):
        yield "model", "model is missing or empty"
    if "messages" not in values and not values.get("prompt"):
        yield "prompt", "prompt is missing or empty"
    if "messages" in values and "prompt" in values:
        yield "prompt", "prompt and messages are mutually exclusive: give only one"
    if values.get("chat_template_kwargs") and "messages" not in values:
        yield (
            "chat_template_kwargs",
            "chat_template_kwargs are for messages: no chat template is applied to a prompt",
        )
    yield from needs_problems(values, names)
    for name, value in values.items():
        if name in known and name not in DELAYS:
            theirs = names.get(name, name)
            yield from ((theirs, problem) for problem in known[name].asked_rule.problems(theirs, value))
