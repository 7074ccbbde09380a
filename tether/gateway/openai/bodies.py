"""Reads requests for chat completions in the form of OpenAI's, and makes requests for jobs of them: pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tether.errors import InvalidRequest
from tether.gateway.bodies import read_job_request
from tether.jobs import JobRequest, Priority, Sampling
from tether.models.registry import ModelVersion
from tether.requests import fields
from tether.requests.checking import unknown_problems
from tether.requests.table import Place

DEFAULT_TEMPERATURE = 1.0
"""What OpenAI's clients expect where they say nothing: answers differ."""

_SEED_BITS = 63

_PASSED_ON = (
    *("model", "messages", "adapter", "priority", "time_limit_ms"),
    *("correlation_id", "retry_token"),
)
_TURNED = ("max_tokens", "max_completion_tokens", "seed", "metadata", "stream", "stream_options")

IGNORED = (
    *("user", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
    "parallel_tool_calls",
)
"""Fields that change nothing about the answer: they may be there."""

UNSUPPORTED: Mapping[str, tuple[object, ...]] = {
    "n": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
}
"""Fields that would change the answer and are not supported, each with the values that ask for nothing."""

_ROLES = {"developer": "system"}
_TOOL_ROLES = ("tool", "function")
_IGNORED_IN_MESSAGES = ("name", "annotations")

MAX_PROBLEMS = 20
"""Problems that a message names: a long conversation may have one in each of its messages."""

_Problem = tuple[str, str]
"""The field, and what is wrong."""


@dataclass(frozen=True)
class ChatRequest:
    """A chat completion request.

    Attributes:
      job: The job that generates the completion.
      model: The model version that it runs on.
      is_streamed: Whether the completion is streamed in chunks.
      wants_usage: Whether the last chunk has the token usage.
    """

    job: JobRequest
    model: ModelVersion
    is_streamed: bool
    wants_usage: bool


def passed_on() -> tuple[str, ...]:
    """Return the fields that are those of a job request, by the same name: with all ways of sampling."""
    table = fields.TABLE.fields.values()
    sampling = (each.name for each in table if each.about.place is Place.SAMPLING)
    return (*_PASSED_ON, *(name for name in sampling if name not in _TURNED))


def known_fields() -> tuple[str, ...]:
    """Return every field that a request may have."""
    return (*passed_on(), *_TURNED, *IGNORED, *UNSUPPORTED)


def read_chat(
    values: Mapping[str, Any],
    now_ms: int,
    headers: Mapping[str, str],
    *,
    find: Callable[[str], ModelVersion],
    randomness: Callable[[int], bytes],
) -> ChatRequest:
    """Return the request in a body.

    Without a seed one is generated: derived from the idempotency key if there is one, so that a retried
    request is the same job.

    Args:
      now_ms: Milliseconds since the epoch, which the time limit counts from.
      headers: Headers of the HTTP request, which may have its keys and trace.
      find: Returns the version of a model's name.
      randomness: Returns so many random bytes.

    Raises:
      InvalidRequest: It is invalid. The message lists every problem, ``param`` is the first.
      UnknownModel: No such model is configured.
    """
    given = {name: value for name, value in values.items() if value is not None}
    problems = [*_unknown(given), *_unsupported(given), *_stream_problems(given)]
    body = {name: given[name] for name in passed_on() if name in given}
    body.setdefault("temperature", DEFAULT_TEMPERATURE)
    body.setdefault("priority", Priority.INTERACTIVE.value)
    if "metadata" in given:
        body["labels"] = given["metadata"]
    if isinstance(given.get("messages"), list):
        body["messages"] = [
            _message(number, message, problems) for number, message in enumerate(given["messages"])
        ]
    else:
        body.setdefault("messages", [])
    model = find(given["model"]) if isinstance(given.get("model"), str) and given["model"] else None
    body["max_tokens"] = _max_tokens(given, model, problems)
    body["seed"] = _seed(given.get("seed"), body, headers, randomness)
    try:
        job = read_job_request(body, now_ms, headers)
    except InvalidRequest as error:
        problems.append(("", str(error)))
    if problems:
        raise _refusal(problems)
    assert model is not None
    options = given.get("stream_options", {})
    return ChatRequest(job, model, given.get("stream", False), options.get("include_usage") is True)


def _refusal(problems: list[_Problem]) -> InvalidRequest:
    texts = [text for _, text in problems[:MAX_PROBLEMS]]
    if len(problems) > MAX_PROBLEMS:
        texts.append(f"and {len(problems) - MAX_PROBLEMS} more problems")
    error = InvalidRequest("; ".join(texts))
    error.param = problems[0][0] or None
    return error


def _unknown(given: Mapping[str, Any]) -> Iterator[_Problem]:
    known = known_fields()
    yield from unknown_problems([name for name in given if name not in known], known)


def _unsupported(given: Mapping[str, Any]) -> Iterator[_Problem]:
    for name, harmless in UNSUPPORTED.items():
        if name in given and not any(_is_same(given[name], value) for value in harmless):
            allowed = f", other than {' or '.join(map(repr, harmless))}" if harmless else ""
            yield name, f"{name}={given[name]!r:.80} is not supported{allowed}: leave it out"


def _is_same(value: object, other: object) -> bool:
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _stream_problems(given: Mapping[str, Any]) -> Iterator[_Problem]:
    if not isinstance(given.get("stream", False), bool):
        yield "stream", f"stream={given['stream']!r:.80} is neither true nor false"
    options = given.get("stream_options", {})
    if not isinstance(options, dict):
        yield "stream_options", f"stream_options is of type {type(options).__name__}, not an object"
    elif not isinstance(options.get("include_usage") or False, bool):
        yield "stream_options", "stream_options.include_usage is neither true nor false"


def _message(number: int, value: object, problems: list[_Problem]) -> object:
    """A message in our form. What cannot be one is left as it is, for the check of all requests to name."""
    if not isinstance(value, dict):
        return value
    place = f"messages[{number}]"
    role, content = value.get("role"), value.get("content")
    if role in _TOOL_ROLES:
        problems.append(("messages", f"{place}.role={role!r}: tools are not supported"))
        role = "user"
    for name, one in value.items():
        if name in ("role", "content", *_IGNORED_IN_MESSAGES) or one is None or one == []:
            continue
        problems.append(("messages", f"{place} has a field {name[:80]!r}, which is not supported"))
    if isinstance(content, list):
        content = _text_of(place, content, problems)
    return {"role": _ROLES.get(role, role) if isinstance(role, str) else role, "content": content}


def _text_of(place: str, parts: list[Any], problems: list[_Problem]) -> str:
    """The text of a content in parts."""
    texts: list[str] = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get("text") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(text, str):
            shown = f"of type {kind!r:.80}" if kind else "without a type"
            problems.append(("messages", f"{place}.content has a part {shown}: only text is supported"))
            break
        texts.append(text)
    return "".join(texts)


def _max_tokens(given: Mapping[str, Any], model: ModelVersion | None, problems: list[_Problem]) -> object:
    named = [name for name in ("max_completion_tokens", "max_tokens") if name in given]
    if not named:
        most = Sampling().max_tokens
        return most if model is None else min(most, model.context)
    if len(named) == 2 and given["max_tokens"] != given["max_completion_tokens"]:
        problems.append(("max_tokens", "max_tokens and max_completion_tokens differ: give only one"))
    return given[named[0]]


def _seed(
    asked: object, body: Mapping[str, Any], headers: Mapping[str, str], randomness: Callable[[int], bytes]
) -> object:
    if isinstance(asked, int) and not isinstance(asked, bool) and -(2**_SEED_BITS) <= asked < 0:
        # OpenAI's seeds may be negative.
        return asked + 2**_SEED_BITS
    if asked is not None:
        return asked
    token = body.get("retry_token") or headers.get("idempotency-key")
    source = hashlib.sha256(repr(token).encode()).digest() if token else randomness(8)
    return int.from_bytes(source[:8], "big") >> (64 - _SEED_BITS)
