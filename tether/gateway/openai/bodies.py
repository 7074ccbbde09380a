"""Reads requests for chat completions in the form of OpenAI's, and makes requests for jobs of them: pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tether.errors import InvalidRequest
from tether.gateway.bodies import read_job_request
from tether.gateway.openai.foreign_fields import HARMLESS, UNSUPPORTED, unsupported_problems
from tether.gateway.openai.messages import read_message
from tether.jobs import JobRequest, Priority, Sampling
from tether.models.registry import ModelVersion
from tether.requests import fields
from tether.requests.checking import Problem, refusal_of, unknown_problems
from tether.requests.rules import shown
from tether.requests.table import Place

DEFAULT_TEMPERATURE = 1.0
"""What OpenAI's clients expect where they say nothing: answers differ."""

_SEED_BITS = 63

_PASSED_ON = (
    *("model", "messages", "chat_template_kwargs", "adapter", "priority"),
    *("time_limit_ms", "expires_in_ms"),
    *("max_attempts", "retry_base_ms", "retry_on", "correlation_id", "retry_token"),
    *("region", "gpu_class", "min_vram", "any_version", "prefer"),
)
_TURNED = (
    *("max_tokens", "max_completion_tokens", "seed", "metadata", "stream", "stream_options"),
    "enable_thinking",
)

MAX_PROBLEMS = 20
"""Problems that a message names: a long conversation may have one in each of its messages."""


@dataclass(frozen=True)
class ChatRequest:
    """A chat completion request.

    Attributes:
      job: The job that generates the completion.
      model: The model version that it runs on.
      is_streamed: Whether the completion is streamed in chunks.
      wants_usage: Whether the last chunk has the token usage.
      names: What the client calls fields of the job, where that is not their own name.
      ignored: What of the request is ignored.
    """

    job: JobRequest
    model: ModelVersion
    is_streamed: bool
    wants_usage: bool
    names: Mapping[str, str]
    ignored: tuple[str, ...] = ()


def passed_on() -> tuple[str, ...]:
    """Return the fields that are those of a job request, by the same name: with all ways of sampling."""
    table = fields.TABLE.fields.values()
    sampling = (each.name for each in table if each.about.place is Place.SAMPLING)
    return (*_PASSED_ON, *(name for name in sampling if name not in _TURNED))


def known_fields() -> tuple[str, ...]:
    """Return every field that a request may have."""
    return (*passed_on(), *_TURNED, *HARMLESS, *UNSUPPORTED)


def read_chat(
    values: Mapping[str, Any],
    now_ms: int,
    headers: Mapping[str, str],
    *,
    find: Callable[[str], ModelVersion],
    randomness: Callable[[int], bytes],
    ignores_unknown: bool = False,
) -> ChatRequest:
    """Return the request in a body.

    Without a seed one is generated: derived from the idempotency key if there is one, so that a retried
    request is the same job.

    Args:
      now_ms: Milliseconds since the epoch, which the time limit counts from.
      headers: Headers of the HTTP request, which may have its keys and trace.
      find: Returns the version of a model's name.
      randomness: Returns so many random bytes.
      ignores_unknown: Whether unknown fields, and those that only steer the answer, are ignored.

    Raises:
      InvalidRequest: It is invalid. The message lists every problem, ``param`` is the first.
      UnknownModel: No such model is configured.
    """
    given = {name: value for name, value in values.items() if value is not None}
    ignored: list[str] | None = [] if ignores_unknown else None
    problems = [*_unknown(given, ignored), *unsupported_problems(given, ignored), *_stream_problems(given)]
    names = names_in(given)
    body = {name: given[name] for name in passed_on() if name in given}
    if _is_whole_vocabulary(body.get("top_k")):
        body["top_k"] = 0
    body.setdefault("temperature", DEFAULT_TEMPERATURE)
    names_priority = "priority" in body
    body.setdefault("priority", Priority.INTERACTIVE.value)
    if "enable_thinking" in given:
        body["chat_template_kwargs"] = _with_thinking(given, problems)
    if "metadata" in given:
        body["labels"] = given["metadata"]
    if isinstance(given.get("messages"), list):
        body["messages"] = [
            read_message(number, message, problems, ignored)
            for number, message in enumerate(given["messages"])
        ]
    else:
        body.setdefault("messages", [])
    model = find(given["model"]) if isinstance(given.get("model"), str) and given["model"] else None
    body["max_tokens"] = _max_tokens(given, model, problems)
    body["seed"] = _seed(given.get("seed"), body, headers, randomness)
    try:
        job = read_job_request(body, now_ms, headers, names=names)
        if not names_priority and job.named is not None:
            job = replace(job, named=job.named - {"priority"})
    except InvalidRequest as error:
        problems.append((error.param or "", str(error)))
    if problems:
        raise _refusal(problems)
    assert model is not None
    options = given.get("stream_options", {})
    return ChatRequest(
        job,
        model,
        given.get("stream", False),
        options.get("include_usage") is True,
        names,
        tuple(ignored or ()),
    )


def names_in(given: Mapping[str, Any]) -> dict[str, str]:
    """Return what a client calls fields of the job, where that is not their own name."""
    is_new = "max_completion_tokens" in given
    return {
        "labels": "metadata",
        "deadline": "time_limit_ms",
        "expires_at": "expires_in_ms",
        **({"max_tokens": "max_completion_tokens"} if is_new else {}),
    }


def in_words_of(error: InvalidRequest, names: Mapping[str, str]) -> InvalidRequest:
    """Return a refusal of the job as one of the request that it was made from."""
    if error.param is None or error.param not in names:
        return error
    theirs = names[error.param]
    told = InvalidRequest(str(error).replace(f"{error.param}=", f"{theirs}=", 1))
    told.param = theirs
    return told


def _is_whole_vocabulary(top_k: object) -> bool:
    """Others' word for no limit is -1."""
    return top_k == -1 and not isinstance(top_k, bool)


def _refusal(problems: list[Problem]) -> InvalidRequest:
    texts = [text for _, text in problems[:MAX_PROBLEMS]]
    if len(problems) > MAX_PROBLEMS:
        texts.append(f"and {len(problems) - MAX_PROBLEMS} more problems")
    return refusal_of(problems, "; ".join(texts))


def _unknown(given: Mapping[str, Any], ignored: list[str] | None) -> Iterator[Problem]:
    known = known_fields()
    unknown = [name for name in given if name not in known]
    if ignored is None:
        yield from unknown_problems(unknown, known)
    else:
        ignored += unknown


def _stream_problems(given: Mapping[str, Any]) -> Iterator[Problem]:
    if not isinstance(given.get("stream", False), bool):
        yield "stream", f"stream={shown(given['stream'])} is neither true nor false"
    options = given.get("stream_options", {})
    if not isinstance(options, dict):
        yield "stream_options", f"stream_options is of type {type(options).__name__}, not an object"
    elif not isinstance(options.get("include_usage") or False, bool):
        yield "stream_options", "stream_options.include_usage is neither true nor false"


def _with_thinking(given: Mapping[str, Any], problems: list[Problem]) -> object:
    """The variables of the chat template, with that which some clients write beside them."""
    thinks, variables = given["enable_thinking"], given.get("chat_template_kwargs", {})
    if not isinstance(thinks, bool):
        problems.append(("enable_thinking", f"enable_thinking={shown(thinks)} is neither true nor false"))
    if not isinstance(variables, dict):
        return variables
    if variables.get("enable_thinking", thinks) != thinks:
        problems.append(
            (
                "enable_thinking",
                "enable_thinking and chat_template_kwargs.enable_thinking differ: give only one",
            )
        )
    return {**variables, "enable_thinking": thinks}


def _max_tokens(given: Mapping[str, Any], model: ModelVersion | None, problems: list[Problem]) -> object:
    named = [name for name in ("max_completion_tokens", "max_tokens") if name in given]
    if not named:
        most = Sampling().max_tokens
        return most if model is None else min(most, model.context)
    if len(named) == 2 and given["max_tokens"] != given["max_completion_tokens"]:
        problems.append(
            ("max_completion_tokens", "max_tokens and max_completion_tokens differ: give only one")
        )
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
