"""The Lua scripts beside this module, loaded once, each run by its content hash."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).with_name("lua")

NAMES = (
    "ack",
    "beat",
    "enqueue",
    "goodbye",
    "nack",
    "purge",
    "qsize",
    "reclaim",
    "recover",
    "requeue",
    "take",
)


@cache
def source(name: str) -> str:
    """Text of the script ``name``, with the part that all scripts share before it."""
    prelude = (_FOLDER / "prelude.lua").read_text(encoding="utf-8")
    return prelude + (_FOLDER / f"{name}.lua").read_text(encoding="utf-8")


def sha1(name: str) -> str:
    """The hash by which Redis knows the script ``name``."""
    return _sha1(source(name))


@cache
def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()
