"""Reads requests for chat completions in the form of OpenAI's, and makes requests for jobs of them: pure."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tether.errors import InvalidRequest
from tether.gateway.bodies import read_job
from tether.gateway.validation import MOST_NAMED
from tether.jobs import JobRequest, Priority, Sampling
from tether.scheduling.models import ModelVersion

DEFAULT_TEMPERATURE = 1.0
"""What OpenAI's clients expect where they say nothing: answers differ."""

_SEED_BITS = 63

_AS_THEY_ARE = ("model", "messages", "temperature", "top_p", "stop")
_OURS = ("adapter", "priority", "top_k", "time_limit_ms", "correlation_id", "retry_token")
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

FIELDS = (*_AS_THEY_ARE, *_OURS, *_TURNED, *IGNORED, *UNSUPPORTED)
"""Every field that a request may have."""

_ROLES = {"developer": "system"}
_TOOL_ROLES = ("tool", "function")
_IGNORED_IN_MESSAGES = ("name", "annotations")

_Problem = tuple[str, str]
"""The field, and what is wrong."""


@dataclass(frozen=True)
class ChatRequest:
    """What a client of OpenAI's asks for.

    Attributes:
      job: The job that makes the answer.
      model: The model's version that it runs on.
      is_streamed: Whether the answer comes in chunks, as it is made.
      wants_usage: Whether the last chunk tells of the tokens.
    """

    job: JobRequest
    model: ModelVersion
    is_streamed: bool
    wants_usage: bool


def read_chat(
    values: Mapping[str, Any],
    now_ms: int,
    headers: Mapping[str, str],
    *,
    find: Callable[[str], ModelVersion],
    randomness: Callable[[int], bytes],
) -> ChatRequest:
    """The request that a body tells of.

    Where no seed is given, one is made: of the idempotency key where there is one, so that the same request
    sent again is the same job.

    Args:
      now_ms: Milliseconds since the epoch, which the time limit counts from.
      headers: Of the HTTP request, where its keys and trace may stand.
      find: The version that a model's name means.
      randomness: So many random bytes.

    Raises:
      InvalidRequest: It holds what is not possible. The message names all of it, ``param`` the first.
      UnknownModel: No such model is configured.
    """
    given = {name: value for name, value in values.items() if value is not None}
    problems = [*_unknown(given), *_unsupported(given), *_stream_problems(given)]
    told = {name: given[name] for name in (*_AS_THEY_ARE, *_OURS) if name in given}
    told.setdefault("temperature", DEFAULT_TEMPERATURE)
    told.setdefault("priority", Priority.INTERACTIVE.value)
    if "metadata" in given:
        told["labels"] = given["metadata"]
    if isinstance(given.get("messages"), list):
        told["messages"] = [_message(number, one, problems) for number, one in enumerate(given["messages"])]
    else:
        told.setdefault("messages", [])
    model = find(given["model"]) if isinstance(given.get("model"), str) and given["model"] else None
    told["max_tokens"] = _most_tokens(given, model, problems)
    told["seed"] = _seed(given.get("seed"), told, headers, randomness)
    try:
        job = read_job(told, now_ms, headers)
    except InvalidRequest as error:
        problems.append(("", str(error)))
    if problems:
        raise _refusal(problems)
    assert model is not None
    options = given.get("stream_options", {})
    return ChatRequest(job, model, given.get("stream", False), options.get("include_usage") is True)


def _refusal(problems: list[_Problem]) -> InvalidRequest:
    error = InvalidRequest("; ".join(text for _, text in problems))
    error.param = problems[0][0] or None
    return error


def _unknown(given: Mapping[str, Any]) -> Iterator[_Problem]:
    unknown = [name for name in given if name not in FIELDS]
    for name in unknown[:MOST_NAMED]:
        near = difflib.get_close_matches(name[:100], FIELDS, n=1, cutoff=0.6)
        yield name[:80], f"there is no field {name[:80]!r}{f'; did you mean {near[0]}?' if near else ''}"
    if len(unknown) > MOST_NAMED:
        yield "", f"there are {len(unknown) - MOST_NAMED} more fields that are not known"


def _unsupported(given: Mapping[str, Any]) -> Iterator[_Problem]:
    for name, harmless in UNSUPPORTED.items():
        if name in given and not any(_is_same(given[name], value) for value in harmless):
            allowed = f", other than {' or '.join(map(repr, harmless))}" if harmless else ""
            yield name, f"{name}={given[name]!r:.80} is not supported here{allowed}: leave it out"


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
        problems.append(("messages", f"{place}.role={role!r}: tools are not supported here"))
        role = "user"
    for name, one in value.items():
        if name in ("role", "content", *_IGNORED_IN_MESSAGES) or one is None or one == []:
            continue
        problems.append(("messages", f"{place} has a field {name[:80]!r}, which is not supported here"))
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
            problems.append(("messages", f"{place}.content has a part {shown}: only text is supported here"))
            break
        texts.append(text)
    return "".join(texts)


def _most_tokens(given: Mapping[str, Any], model: ModelVersion | None, problems: list[_Problem]) -> object:
    named = [name for name in ("max_completion_tokens", "max_tokens") if name in given]
    if not named:
        most = Sampling().max_tokens
        return most if model is None else min(most, model.context)
    if len(named) == 2 and given["max_tokens"] != given["max_completion_tokens"]:
        problems.append(("max_tokens", "max_tokens and max_completion_tokens differ: give one of them"))
    return given[named[0]]


def _seed(
    asked: object, told: Mapping[str, Any], headers: Mapping[str, str], randomness: Callable[[int], bytes]
) -> object:
    if isinstance(asked, int) and not isinstance(asked, bool) and -(2**_SEED_BITS) <= asked < 0:
        # OpenAI's seeds may be negative.
        return asked + 2**_SEED_BITS
    if asked is not None:
        return asked
    token = told.get("retry_token") or headers.get("idempotency-key")
    source = hashlib.sha256(repr(token).encode()).digest() if token else randomness(8)
    return int.from_bytes(source[:8], "big") >> (64 - _SEED_BITS)
