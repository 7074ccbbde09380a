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
"""Scripts of plain queues."""

POOL_NAMES = (
    "pool/append_many",
    "pool/beat",
    "pool/cancel",
    "pool/draw",
    "pool/expire",
    "pool/fail",
    "pool/finish",
    "pool/place",
    "pool/release",
    "pool/revoke",
    "pool/seal",
    "pool/withdraw",
)
"""Scripts of pool jobs: nothing else writes those."""


@cache
def source(name: str) -> str:
    """Text of the script ``name``, with the part that all scripts of its folder share before it."""
    file = _FOLDER / f"{name}.lua"
    return file.with_name("prelude.lua").read_text(encoding="utf-8") + file.read_text(encoding="utf-8")


def sha1(name: str) -> str:
    """The hash by which Redis knows the script ``name``."""
    return _sha1(source(name))


@cache
def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()
