"""Fields of chat completions that others know and jobs do not have: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tether.client.documents import json_bytes
from tether.requests.checking import Problem
from tether.requests.rules import shown

HARMLESS = (
    *("user", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
    "parallel_tool_calls",
)
"""Fields that change nothing about the answer: they may be there."""

_STEERING: Mapping[str, tuple[object, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "length_penalty": (1,),
    "logit_bias": ({}, []),
    "min_p": (0,),
    "top_a": (0,),
    "typical_p": (1,),
    "tfs": (1,),
    "min_tokens": (0,),
    "stop_token_ids": ([],),
    "bad_words": ([],),
    "ignore_eos": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "include_stop_str_in_output": (False,),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "add_special_tokens": (False,),
    "echo": (False,),
    "chat_template": (),
    "documents": ([],),
    "reasoning_effort": ("none",),
    "reasoning": ({}, {"effort": "none"}, {"enabled": False}),
    "include_reasoning": (False,),
    "thinking": ({"type": "disabled"},),
    "verbosity": ("medium",),
    "prediction": (),
}
"""Fields that would change what the answer says. Without them it is still an answer."""

_SHAPING: Mapping[str, tuple[object, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "use_beam_search": (False,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "prompt_logprobs": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "structured_outputs": ({},),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
}
"""Fields that ask for an answer of another form, which nobody can read who gets this one."""

UNSUPPORTED: Mapping[str, tuple[object, ...]] = {**_STEERING, **_SHAPING}
"""Fields that would change the answer and are not supported, each with the values that ask for nothing."""


def is_ignorable(name: str) -> bool:
    """Whether an unsupported field is ignored where ``gateway.unknown_fields`` says so."""
    return name in _STEERING


def unsupported_problems(given: Mapping[str, Any], ignored: list[str] | None) -> Iterator[Problem]:
    """Yield fields that ask for what there is not.

    Args:
      ignored: Receives the names of those that are ignored; None where all are refused.
    """
    for name, nothing in UNSUPPORTED.items():
        if name not in given or _asks_for_nothing(given[name], nothing):
            continue
        if ignored is not None and is_ignorable(name):
            ignored.append(name)
            continue
        allowed = (
            f", other than {' or '.join(json_bytes(one).decode() for one in nothing)}" if nothing else ""
        )
        yield name, f"{name}={_json_shown(given[name])} is not supported{allowed}: leave it out"


def _asks_for_nothing(value: object, nothing: tuple[object, ...]) -> bool:
    return any(_is_same(value, one) for one in nothing)


def _is_same(value: object, other: object) -> bool:
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _json_shown(value: object) -> str:
    """As its sender wrote it, where that is short."""
    if isinstance(value, bool | int | float | None):
        return json_bytes(value).decode()[:80]
    return shown(value)
