"""Redacts credentials in text, and values whose names say that they are secret, from logs.

Pure functions. They take any value of a log line and return plain values that JSON can represent; no input
makes them raise.
"""

from __future__ import annotations

import math
import re
import traceback
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

MASK = "***"

MAX_TEXT_CHARACTERS = 16_384
"""Characters of one value that are kept; a log line is no place for a payload."""

DEEPEST_VALUE = 8
"""Levels of nested values that are kept."""

_SECRET_WORDS = frozenset(
    {
        "apikey",
        "authorization",
        "cookie",
        "credential",
        "credentials",
        "passphrase",
        "passwd",
        "password",
        "secret",
        "secrets",
    }
)
_SECRET_ENDINGS = ("token", "api_key", "access_key", "private_key", "secret_key", "signing_key")
_NO_SECRETS = frozenset({"retry_token", "bos_token", "eos_token", "pad_token", "stop_token", "unk_token"})
"""Names that end in ``token`` and hold none: a retry token is an idempotency key, the rest are vocabulary."""

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NOT_WORD = re.compile(r"[^a-z0-9]+")
_CHUNK = re.compile(r"\S+")
_USER = re.compile(r"([^/?#@:]{0,256})(:(?!\d+[/?#])|@)?")
_BEARER = re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
_ASSIGNMENT = re.compile(
    r"""(password|passwd|passphrase|secret|api[_-]?key|(?<!retry_)token)
        ("\s*:|'\s*:|=)(\s?)                                     # "name": or 'name': or name=
        ("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s&,;)\]}'"]+)""",
    re.IGNORECASE | re.VERBOSE,
)


@lru_cache(maxsize=1024)
def names_a_secret(name: str) -> bool:
    """Whether a value of this name must not be shown: passwords, secrets, tokens, API keys and the like.

    Words count in any spelling (``api_key``, ``apiKey``, ``X-Api-Key``). Plurals and counts of tokens
    (``max_tokens``, ``token_count``) are no secrets, nor is a retry token: it is an idempotency key, and
    the way to find a job.
    """
    words = _NOT_WORD.sub("_", _CAMEL.sub("_", name).lower()).strip("_")
    if words in _NO_SECRETS:
        return False
    return not _SECRET_WORDS.isdisjoint(words.split("_")) or words.endswith(_SECRET_ENDINGS)


def scrub(text: str) -> str:
    """The text without the credentials in it.

    Masked are passwords in URLs, user parts of HTTP URLs that stand alone (tokens), what follows
    ``Bearer`` or ``Basic``, and values written as ``password=…``, ``"api_key": …`` and the like.
    """
    if "://" in text:
        text = _CHUNK.sub(lambda match: _scrub_urls(match.group()), text)
    text = _BEARER.sub(rf"\1 {MASK}", text)
    return _ASSIGNMENT.sub(rf"\1\2\3{MASK}", text)


def _scrub_urls(chunk: str) -> str:
    end = chunk.rfind("@")
    start = chunk.find("://")
    while 0 <= start < end:
        match = _USER.match(chunk, start + 3)
        if match is not None and match.group(2) == ":":
            # Up to the last "@": a password may hold anything, and masking too much does no harm.
            return f"{chunk[: match.end()]}{MASK}{chunk[end:]}"
        if match is not None and match.group(2) == "@" and chunk[:start].lower().endswith(("http", "https")):
            chunk = f"{chunk[: start + 3]}{MASK}{chunk[match.end() - 1 :]}"
            end = chunk.rfind("@")
        start = chunk.find("://", start + 3)
    return chunk


def plain_text(value: object) -> str:
    """Any value as text without credentials, at most :data:`MAX_TEXT_CHARACTERS` characters of it."""
    try:
        if isinstance(value, str):
            text = str.__str__(value)
        elif isinstance(value, bytes | bytearray | memoryview):
            text = bytes(value).decode("utf-8", "backslashreplace")
        else:
            text = repr(value)
    except Exception as error:
        return f"<{type(value).__name__}: its text raises {type(error).__name__}>"
    text = scrub(text)
    if len(text) > MAX_TEXT_CHARACTERS:
        return f"{text[:MAX_TEXT_CHARACTERS]}… ({len(text) - MAX_TEXT_CHARACTERS} characters more)"
    return text


def plain_value(value: object, depth: int = 0) -> Any:
    """Any value as one that JSON can hold, without secrets."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if value.bit_length() <= 1024 else hex(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else float.__repr__(value)
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        if depth >= DEEPEST_VALUE:
            return "…"
        try:
            if isinstance(value, Mapping):
                return plain_fields(value, depth + 1)
            return [plain_value(item, depth + 1) for item in value]
        except Exception as error:
            return f"<{type(value).__name__}: its items raise {type(error).__name__}>"
    return plain_text(value)


def plain_fields(fields: Mapping[Any, object], depth: int = 0) -> dict[str, Any]:
    """Named values as ones that JSON can hold; those whose name says that they are secret are masked."""
    plain = {}
    for key, value in fields.items():
        name = plain_text(key)
        hidden = value is not None and not isinstance(value, bool) and names_a_secret(name)
        plain[name] = MASK if hidden else plain_value(value, depth)
    return plain


def plain_exception(error: BaseException) -> dict[str, str]:
    """An exception as ``type``, ``message`` and ``traceback``, without the credentials in its texts."""
    kind = type(error)
    try:
        message = plain_text(str(error))
    except Exception as failure:
        message = f"<its text raises {type(failure).__name__}>"
    return {
        "type": kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}",
        "message": message,
        "traceback": plain_text("".join(traceback.format_exception(error)).rstrip("\n")),
    }
