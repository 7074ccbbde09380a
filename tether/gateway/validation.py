"""Checks what a client asks for: pure, with a message for each thing that is wrong."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tether.errors import InvalidRequest
from tether.jobs import ROLES, JobFilter, JobRequest, JobState, Message, Priority, Sampling

if TYPE_CHECKING:
    from tether.scheduling.models import ModelVersion

LONGEST_PROMPT = 4_194_304
"""Bytes of a prompt, or of all messages of a conversation together, as UTF-8."""

MOST_MESSAGES = 1_000

MOST_CHARACTERS_A_TOKEN = 16
"""By which a prompt is refused that is too long whatever the tokenizer; the engine counts exactly."""

LONGEST_KEY = 200
"""Characters of a correlation id or a retry token."""

MOST_NAMED = 10
"""Unknown fields that a message names."""

MOST_LABELS = 32
LONGEST_LABEL = 256
MOST_STOPS = 16
LONGEST_STOP = 256
MOST_TOKENS = 1_000_000
LATEST_TIME_MS = 2**53
LATEST_FILTER_MS = 2**48 - 1
"""Latest time that a job's id can hold."""

_NUMBERS: Mapping[str, tuple[type | tuple[type, ...], float, float, str]] = {
    "max_tokens": (int, 1, MOST_TOKENS, f"a whole number from 1 to {MOST_TOKENS}"),
    "temperature": ((int, float), 0, 100, "a number from 0 to 100"),
    "top_k": (int, 0, MOST_TOKENS, f"a whole number from 0 (all) to {MOST_TOKENS}"),
    "seed": (int, 0, 2**63 - 1, "a whole number from 0 to 9223372036854775807"),
    "not_before": (int, 0, LATEST_TIME_MS, "milliseconds since the epoch"),
    "deadline": (int, 0, LATEST_TIME_MS, "milliseconds since the epoch"),
}
_SAMPLING = ("max_tokens", "top_k", "seed", "temperature", "top_p")
_KEYS = ("correlation_id", "retry_token")
_TEXTS = ("model", "prompt", "adapter", "traceparent", *_KEYS)
FIELDS = (*_TEXTS, "messages", "priority", "labels", "top_p", "stop", *_NUMBERS)
"""Every field that a request can have."""


def read_request(values: Mapping[str, Any], *, also: Sequence[str] = ()) -> JobRequest:
    """A request from plain values.

    Args:
      also: Fields that the caller knows beside these, to be named where one is mistyped.

    Raises:
      InvalidRequest: Fields are missing, unknown, of wrong types or out of range. The message names all.
    """
    problems = list(_problems(values, (*FIELDS, *also)))
    if problems:
        raise InvalidRequest(_told(problems))
    stop = values.get("stop", ())
    chosen: dict[str, Any] = {name: values[name] for name in _SAMPLING if name in values}
    sampling = Sampling(**chosen, stop=(stop,) if isinstance(stop, str) else tuple(stop))
    given = {name: values[name] for name in (*_TEXTS, "not_before", "deadline") if name in values}
    return JobRequest(
        **given,
        messages=tuple(_message(one) for one in values.get("messages", ())),
        sampling=sampling,
        priority=Priority(values.get("priority", Priority.STANDARD)),
        labels=dict(values.get("labels") or {}),
    )


def read_filter(values: Mapping[str, Any]) -> JobFilter:
    """A filter of jobs from plain values: ``state`` (a list), ``model``, ``labels``, ``created_after`` and
    ``created_before``.

    Raises:
      InvalidRequest: Values are of wrong types or out of range. The message names all.
    """
    problems = [*_label_problems(values.get("labels") or {})]
    states = values.get("state") or []
    if not isinstance(states, list):
        problems.append(f"state={_shown(states)} is not a state or a list of states")
        states = []
    for state in states:
        if state not in tuple(JobState):
            problems.append(f"state={_shown(state)} is not one of {', '.join(JobState)}")
    if values.get("model") is not None:
        problems += _text_problems("model", values["model"])
    for name in ("created_after", "created_before"):
        value = values.get(name)
        if value is not None and not _is_number(value, int, 0, LATEST_FILTER_MS):
            problems.append(f"{name}={_shown(value)} is no time in milliseconds since the epoch")
    if problems:
        raise InvalidRequest(_told(problems))
    return JobFilter(
        states=tuple(map(JobState, states)),
        model=values.get("model"),
        labels=dict(values.get("labels") or {}),
        created_after=values.get("created_after"),
        created_before=values.get("created_before"),
    )


def check_for_model(request: JobRequest, version: ModelVersion, now_ms: int) -> None:
    """Check what can only be judged with the model and the time known.

    Args:
      now_ms: Milliseconds since the epoch.

    Raises:
      InvalidRequest: The job could never run.
    """
    if request.deadline and request.deadline <= max(now_ms, request.not_before):
        raise InvalidRequest("the time limit ends before the job could begin: give it more time")
    if request.sampling.max_tokens > version.context:
        raise InvalidRequest(
            f"max_tokens={request.sampling.max_tokens} is more than the context of model "
            f"{request.model!r}, which is {version.context} tokens"
        )
    least_tokens = request.characters // MOST_CHARACTERS_A_TOKEN
    if least_tokens >= version.context:
        what, them = ("messages have", "them") if request.messages else ("prompt has", "it")
        raise InvalidRequest(
            f"the {what} {request.characters} characters, at least {least_tokens} tokens, and the "
            f"context of model {request.model!r} is {version.context} tokens: shorten {them}"
        )
    if request.adapter and request.adapter not in version.adapters:
        known = ", ".join(version.adapters) or "none"
        raise InvalidRequest(f"model {request.model!r} has no adapter {request.adapter!r}; it has: {known}")


def _told(problems: Sequence[str]) -> str:
    return "; ".join(problems) if len(problems) == 1 else f"{len(problems)} problems: " + "; ".join(problems)


def _problems(values: Mapping[str, Any], known: Sequence[str]) -> Iterator[str]:
    unknown = [name for name in values if name not in FIELDS]
    if len(unknown) > MOST_NAMED:
        yield f"there are {len(unknown) - MOST_NAMED} more fields that are not known"
    for name in unknown[:MOST_NAMED]:
        near = difflib.get_close_matches(str(name)[:100], known, n=1, cutoff=0.6)
        yield f"there is no field {str(name)[:80]!r}{f'; did you mean {near[0]}?' if near else ''}"
    if not values.get("model"):
        yield "model is missing or empty"
    if "messages" not in values and not values.get("prompt"):
        yield "prompt is missing or empty"
    if "messages" in values:
        if "prompt" in values:
            yield "prompt and messages are both given: give one of them"
        yield from _message_problems(values["messages"])
    for name in _TEXTS:
        if name in values:
            yield from _text_problems(name, values[name])
    for name, (kind, least, most, words) in _NUMBERS.items():
        if name in values and not _is_number(values[name], kind, least, most):
            yield f"{name}={_shown(values[name])} is not {words}"
    if "top_p" in values and not (_is_number(values["top_p"], (int, float), 0, 1) and values["top_p"] > 0):
        yield f"top_p={_shown(values['top_p'])} is not a number greater than 0, at most 1"
    if values.get("priority", "standard") not in tuple(Priority):
        yield f"priority={_shown(values['priority'])} is not interactive, standard or batch"
    yield from _stop_problems(values.get("stop", ()))
    yield from _label_problems({} if values.get("labels") is None else values["labels"])


def _is_number(value: object, kind: type | tuple[type, ...], least: float, most: float) -> bool:
    return (
        isinstance(value, kind)
        and not isinstance(value, bool)
        and isinstance(value, int | float)
        and least <= value <= most
        and math.isfinite(value)
    )


def _text_problems(name: str, value: object) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{name} is of type {type(value).__name__}, not text"
        return
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        yield f"{name} holds half of a surrogate pair, which is no text: decode it as UTF-8 first"
        return
    if name in _KEYS and (len(value) > LONGEST_KEY or not value.isprintable()):
        yield f"{name} has more than {LONGEST_KEY} characters, or some that cannot be printed"
    if name == "prompt" and size > LONGEST_PROMPT:
        yield f"prompt has {size} bytes, and may have {LONGEST_PROMPT}"
    if name in ("model", "adapter", "traceparent") and (size > LONGEST_LABEL or not value.isprintable()):
        yield f"{name} has more than {LONGEST_LABEL} bytes, or characters that cannot be printed"


def _message(value: Message | Mapping[str, str]) -> Message:
    return value if isinstance(value, Message) else Message(value["role"], value["content"])


def _message_problems(messages: object) -> Iterator[str]:
    if not isinstance(messages, list | tuple) or not 1 <= len(messages) <= MOST_MESSAGES:
        yield f"messages is not a list of 1 to {MOST_MESSAGES} messages"
        return
    size = 0
    for number, message in enumerate(messages):
        problem, bytes_of_it = _look_at_message(message)
        if problem:
            # One of them says enough: a list of many would say the same of each.
            yield f"messages[{number}]{problem}"
            return
        size += bytes_of_it
    if size > LONGEST_PROMPT:
        yield f"messages have {size} bytes together, and may have {LONGEST_PROMPT}"


def _look_at_message(message: object) -> tuple[str, int]:
    """What is wrong with a message, and the bytes of its text."""
    if isinstance(message, Message):
        message = {"role": message.role, "content": message.content}
    if not isinstance(message, Mapping):
        return (
            f' is of type {type(message).__name__}, not an object like {{"role": "user", "content": "…"}}',
            0,
        )
    others = [name for name in message if name not in ("role", "content")]
    if others:
        return f" has a field {str(others[0])[:80]!r}; there are role and content", 0
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        return f".role={_shown(role)} is not one of {', '.join(ROLES)}", 0
    if not isinstance(content, str):
        return f".content is of type {type(content).__name__}, not text", 0
    if not _is_text(content):
        return ".content holds half of a surrogate pair, which is no text: decode it as UTF-8 first", 0
    return "", len(content.encode())


def _stop_problems(stop: object) -> Iterator[str]:
    texts = (stop,) if isinstance(stop, str) else stop
    if not isinstance(texts, list | tuple) or len(texts) > MOST_STOPS:
        yield f"stop is not a text or a list of at most {MOST_STOPS} texts"
    elif not all(
        isinstance(text, str) and 0 < len(text) <= LONGEST_STOP and _is_text(text) for text in texts
    ):
        yield f"stop holds something other than texts of 1 to {LONGEST_STOP} characters"


def _label_problems(labels: object) -> Iterator[str]:
    if not isinstance(labels, Mapping) or len(labels) > MOST_LABELS:
        yield f"labels is not a table of at most {MOST_LABELS} texts"
    elif not all(
        isinstance(text, str) and len(text) <= LONGEST_LABEL and _is_text(text) and "\0" not in text
        for pair in labels.items()
        for text in pair
    ):
        yield f"labels holds something other than texts of at most {LONGEST_LABEL} characters"
    elif any("=" in name or not name for name in labels):
        yield "labels has a name that is empty or has '=' in it: it could not be asked for as name=value"


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
