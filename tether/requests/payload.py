"""The payload of a job: what only the worker reads. Whoever admits the job writes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tether.errors import InvalidRequest
from tether.requests import fields
from tether.requests.fields import JobRequest, Sampling
from tether.requests.rules import Message, Number
from tether.requests.table import NESTED

PAYLOAD_VERSION = 1
"""Readers accept this one and the one before."""

READABLE_VERSIONS = tuple(version for version in (PAYLOAD_VERSION - 1, PAYLOAD_VERSION) if version >= 1)


@dataclass(frozen=True, kw_only=True)
class Payload:
    """The worker's task: the fields of a request whose place is the payload, under their names.

    Attributes:
      prompt: The text to continue; empty if there are messages.
      messages: The conversation to reply to, instead of a prompt.
      chat_template_kwargs: Variables for the chat template beside the messages.
      sampling: The sampling parameters.
      adapter: The adapter of the model; empty is none.
    """

    prompt: str
    messages: tuple[Message, ...] = ()
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    sampling: Sampling
    adapter: str = ""


_NAMES = tuple(each.name for each in dataclasses.fields(Payload))


def payload_of(request: JobRequest) -> dict[str, Any]:
    """Return the payload of a request, as it is written in JSON."""
    return {"v": PAYLOAD_VERSION, **fields.TABLE.payload_form.of(request)}


def read_payload(values: Mapping[str, Any]) -> Payload:
    """Return what a payload says. Fields that are not known here are those of newer gateways, and left alone.

    Raises:
      InvalidRequest: This version cannot read it. The message names all that is wrong.
    """
    version = values.get("v")
    if type(version) is not int or version not in READABLE_VERSIONS:
        raise InvalidRequest(
            f"the job's payload has version {str(version)[:20]!r}, and this worker reads "
            f"{' and '.join(map(str, READABLE_VERSIONS))}: update the workers before the gateways"
        )
    sampling = values.get(NESTED)
    if not isinstance(sampling, dict):
        raise InvalidRequest("sampling in the job's payload is missing or no object")
    given = {
        name: source[name]
        for name, each in fields.TABLE.fields.items()
        if each.is_in_payload and name in (source := sampling if each.is_nested else values)
    }
    # An empty prompt stands beside messages, and no messages beside a prompt.
    for name in ("prompt", "messages"):
        if given.get(name) in ("", []):
            del given[name]
    problems = list(_problems(given))
    if problems:
        raise InvalidRequest(f"the job's payload cannot be read: {'; '.join(problems)}")
    for name, value in given.items():
        if isinstance(fields.TABLE.fields[name].rule, Number):
            # What engines compute with; whether a client wrote 1 or 1.0 counts for digests alone.
            given[name] = float(value)
    request = fields.TABLE.make({"model": "", **given})
    return Payload(**{name: getattr(request, name) for name in _NAMES})


def _problems(given: Mapping[str, Any]) -> Iterator[str]:
    for name, value in given.items():
        yield from fields.TABLE.fields[name].rule.problems(name, value)
    if ("prompt" in given) == ("messages" in given):
        yield "there is neither a prompt nor messages, or both"
