"""The page `docs/reference/python.md`, made from the signatures and docstrings of the client."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from markdown import markdown_of, words_of

from tether.client import lazy
from tether.client.api import Tether
from tether.client.async_api import AsyncTether
from tether.client.dead_letters import DeadLetters, LetterOptions
from tether.client.dead_messages import DeadQueues
from tether.client.handles import JobHandle, Result
from tether.client.many_jobs import JobOptions, ManyJobs
from tether.dead_letters import DeadLetter, LetterDetails, LetterRetry, LetterSummary, RetryLink
from tether.dead_messages import DeadMessage, DeadMessageRetry, DeadQueue
from tether.histories import AttemptRecord, JobHistory
from tether.job_changes import JobChange
from tether.statuses import JobStatus, ModelInfo
from tether.streams.events import StreamEvent

INTRODUCTION = """\
# The Python client

<!-- Made from tether/client/api.py and the values that it returns by ops/generate-docs: change it there. -->

Every method of the client. [The Python API](../guide/python.md) is its guide, with examples;
`tether.testing` has [a fake](../guide/testing.md) with the same methods. `AsyncTether` and `AsyncJobHandle`
have the same methods for event loops: those that block are awaited, and `jobs`, `stream` and `events` are
iterated with `async for`.
"""

CLASSES = (Tether, JobHandle, DeadLetters, DeadQueues, ManyJobs)
VALUES = (
    *(Result, JobStatus, JobHistory, AttemptRecord, ModelInfo, StreamEvent),
    *(DeadLetter, LetterDetails, RetryLink, LetterRetry, LetterSummary),
    *(DeadMessage, DeadMessageRetry, DeadQueue, JobChange),
)
FILTERS = (LetterOptions, JobOptions)

_SECTION = re.compile(r"^(Args|Raises|Attributes|Returns):$")
_ENTRY = re.compile(r"^(\w[\w, ]*): (.*)$")


def page() -> str:
    """Return the text of the page.

    Raises:
      ValueError: A method of `Tether` has no docstring, or no twin on event loops, or what a property of it
        returns is not on the page.
    """
    parts = [INTRODUCTION]
    for owner in CLASSES:
        parts.append(f"## `{owner.__name__}`\n")
        parts += _documented(owner, inspect.getdoc(owner))
        for name, text in _properties(owner):
            parts += [f"### `{name}`\n", f"{words_of(text)}\n"]
        for name, method in _methods(owner):
            if owner is Tether and not hasattr(AsyncTether, name):
                raise ValueError(f"AsyncTether has no method {name}")
            parts.append(f"### `{_signature(name, method)}`\n")
            parts += _documented(method, inspect.getdoc(method))
    parts.append("## Values\n")
    for kind in VALUES:
        parts.append(f"### `{kind.__name__}`\n")
        fields = ", ".join(f"`{field.name}`" for field in dataclasses.fields(kind))
        parts += _documented(kind, inspect.getdoc(kind))
        for base in kind.__mro__[1:-1]:
            parts += list(_documented(base, inspect.getdoc(base)))[1:]
        parts.append(f"Fields: {fields}.\n")
    parts.append("## Filters\n")
    for options in FILTERS:
        parts.append(f"### `{options.__name__}`\n")
        parts += _documented(options, inspect.getdoc(options))
        parts.append(f"Arguments: {', '.join(f'`{name}`' for name in options.__annotations__)}.\n")
    return "\n".join(parts).rstrip() + "\n"


def _properties(owner: type[Any]) -> Iterator[tuple[str, str]]:
    for name, value in vars(owner).items():
        if isinstance(value, property) and value.fget is not None and not name.startswith("_"):
            returned = _returned(value.fget)
            if returned not in (documented.__name__ for documented in CLASSES):
                raise ValueError(f"{owner.__name__}.{name} returns a {returned}, which is not on the page")
            yield f"{name} -> {returned}", value.__doc__ or ""


def _methods(owner: type[Any]) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, value in vars(owner).items():
        function = value.__func__ if isinstance(value, classmethod) else value
        if inspect.isfunction(function) and not name.startswith("_"):
            yield name, function


def _signature(name: str, method: Callable[..., Any]) -> str:
    signature = inspect.signature(method)
    parameters = [each for each in signature.parameters.values() if each.name not in ("self", "cls")]
    bare = inspect.Signature([each.replace(annotation=inspect.Parameter.empty) for each in parameters])
    return f"{name}{bare} -> {_returned(method)}"


def _returned(method: Callable[..., Any]) -> str:
    """What it returns, by its own name, wherever that is imported."""
    annotation = str(inspect.signature(method).return_annotation).partition("[None")[0]
    return annotation.replace(f"{lazy.__name__.rpartition('.')[2]}.", "")


def _documented(owner: object, docstring: str | None) -> Iterator[str]:
    if not docstring:
        raise ValueError(f"{owner} has no docstring")
    for paragraph in docstring.split("\n\n"):
        title, _, rest = paragraph.partition("\n")
        heading = _SECTION.match(title)
        if heading is None:
            yield f"{words_of(paragraph)}\n"
            continue
        if heading[1] == "Raises":
            yield "Raises:\n"
        yield "".join(f"* {_entry(text)}\n" for text in _entries(rest))


def _entries(text: str) -> Iterator[str]:
    """The entries of a section: each begins at its indentation, and goes on where a line has more."""
    entry = ""
    for line in textwrap.dedent(text).splitlines():
        if entry and not line.startswith(" "):
            yield entry
            entry = ""
        entry = f"{entry} {line.strip()}".strip()
    yield entry


def _entry(text: str) -> str:
    found = _ENTRY.match(text)
    if found is None:
        return markdown_of(text)
    names = ", ".join(f"`{name.strip()}`" for name in found[1].split(","))
    return f"{names}: {markdown_of(found[2])}"
