"""The rule of the variables that a client hands to a model's chat template."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tether.requests.rules import is_text

RESERVED_NAMES = frozenset(
    {
        *("messages", "conversation", "conversations", "tools", "documents", "add_generation_prompt"),
        *("continue_final_message", "chat_template", "tokenize", "sanitize_control_tokens", "padding"),
        *("truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask"),
        *("tokenizer_kwargs", "self", "loop", "range", "dict", "namespace", "lipsum", "cycler", "joiner"),
        *("raise_exception", "strftime_now"),
    }
)
"""What the template has already, and what says how it is applied. Names of tokens (``bos_token``) are too."""

MAX_WHOLE_NUMBER = 2**53
"""What every reader of JSON reads alike."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}", re.ASCII)
_TOKEN_NAME = re.compile(r"_tokens?\Z")


class _NotPossible(Exception):
    """A value that cannot be a template's variable."""


@dataclass(frozen=True, eq=False)
class TemplateVariables:
    """A JSON object, whose fields are variables of a chat template.

    Attributes:
      max_bytes: Maximum length as JSON without white space, in UTF-8.
      max_depth: Maximum number of objects and lists inside one another, the object itself included.
    """

    max_bytes: int
    max_depth: int

    def problems(self, name: str, value: object) -> Iterator[str]:
        variables = {} if value is None else value
        if not isinstance(variables, Mapping):
            yield f'{name} is of type {type(value).__name__}, not an object like {{"enable_thinking": false}}'
            return
        for variable in variables:
            if not isinstance(variable, str) or not _NAME.fullmatch(variable):
                yield (
                    f"{name} has a variable {str(variable)[:80]!r}: names are letters, digits and "
                    "underscores, at most 64, and begin with a letter"
                )
                return
            if is_reserved(variable):
                yield f"{name} must not contain {variable}: the template has its own"
                return
        try:
            self._check(variables, self.max_depth)
            size = len(json.dumps(variables, ensure_ascii=False, separators=(",", ":")).encode())
        except _NotPossible as problem:
            yield f"{name} {problem}"
            return
        if size > self.max_bytes:
            yield f"{name} has {size} bytes; the maximum is {self.max_bytes}"

    def _check(self, value: object, depth: int) -> None:
        if isinstance(value, str):
            if not is_text(value):
                raise _NotPossible("contains an unpaired surrogate: decode it as UTF-8 first")
        elif isinstance(value, Mapping | list | tuple):
            if not depth:
                raise _NotPossible(f"is deeper than {self.max_depth} objects and lists inside one another")
            if isinstance(value, Mapping):
                for key in value:
                    if not isinstance(key, str):
                        raise _NotPossible(
                            f"has an object with a key of type {type(key).__name__}, not a string"
                        )
                    self._check(key, depth)
            for each in value.values() if isinstance(value, Mapping) else value:
                self._check(each, depth - 1)
        elif isinstance(value, bool) or value is None:
            return
        elif isinstance(value, int):
            if abs(value) > MAX_WHOLE_NUMBER:
                raise _NotPossible(f"contains an integer beyond {MAX_WHOLE_NUMBER}")
        elif not isinstance(value, float) or not math.isfinite(value):
            raise _NotPossible(f"contains a value of type {type(value).__name__} that JSON does not have")

    def read(self, value: Any) -> dict[str, Any]:
        return dict(value or {})

    def to_json(self, value: Any) -> dict[str, Any]:
        return dict(value)

    def schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "propertyNames": {"pattern": f"^{_NAME.pattern}$", "not": {"enum": sorted(RESERVED_NAMES)}},
        }


def is_reserved(name: str) -> bool:
    """Return whether a variable of this name would take the place of one that is not the client's."""
    return name in RESERVED_NAMES or _TOKEN_NAME.search(name) is not None
