"""Lua scripts: found in their folder, and run in one way, by the hash of their text."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import redis

from tether.broker.redis.connections import raise_if_refused

Argument = bytes | str | int | float
"""What Redis takes as a script's argument."""

_PRELUDE = "prelude"


class Scripts:
    """The scripts in a folder, each named by its path in it, without its ending."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sources: dict[str, str] = {}

    def names(self) -> tuple[str, ...]:
        """Names of all scripts, in order."""
        files = (file for file in self._folder.rglob("*.lua") if not _is_part(file))
        names = (file.relative_to(self._folder).with_suffix("") for file in files)
        return tuple(sorted(name.as_posix() for name in names if _PRELUDE not in name.parts))

    def source(self, name: str) -> str:
        """Text of a script, after what it uses of the definitions that all scripts of its folder share, where
        there are any: Redis makes each of them anew in every call. A long script goes on in the files of a
        folder with its name, in the order of theirs."""
        text = self._sources.get(name)
        if text is None:
            file = self._folder / f"{name}.lua"
            shared = shared_definitions(file.parent)
            parts = (file, *sorted(file.with_suffix("").glob("*.lua")))
            own = "".join(part.read_text(encoding="utf-8") for part in parts)
            text = self._sources[name] = _needed(shared, own) + own
        return text

    def sha1(self, name: str) -> str:
        """The hash by which Redis knows a script."""
        return _sha1(self.source(name))

    def by_hash(self, name: str, key: str, arguments: Iterable[Argument]) -> tuple[Argument, ...]:
        """Return the command that runs a script that Redis knows. If it does not (it was restarted, or this
        is the first call), it replies ``NOSCRIPT`` and does nothing.

        Args:
          name: Which script.
          key: The one key that it names; it builds the others from it, which lie in the same slot.
          arguments: Its arguments.
        """
        return ("EVALSHA", self.sha1(name), 1, key, *arguments)

    def by_text(self, name: str, key: str, arguments: Iterable[Argument]) -> tuple[Argument, ...]:
        """The command that runs a script whether Redis knows it or not; it knows it from then on. Like
        :meth:`by_hash`, it goes to the node of a cluster that has the key."""
        return ("EVAL", self.source(name), 1, key, *arguments)

    def run(self, client: redis.Redis, name: str, key: str, *arguments: Argument) -> Any:
        """Run a script through a client, with its retries, and return its reply. Scripts that run for every
        message use :class:`~tether.broker.redis.raw_connections.RawConnections`.

        Raises:
          OUTAGE_ERRORS: It may or may not have been executed; or Redis rejects it for now.
          redis.ResponseError: The script failed.
        """
        try:
            try:
                return client.execute_command(*self.by_hash(name, key, arguments))  # type: ignore[no-untyped-call]
            except redis.exceptions.NoScriptError:
                return client.execute_command(*self.by_text(name, key, arguments))  # type: ignore[no-untyped-call]
        except redis.ResponseError as error:
            raise_if_refused(error)
            raise


def _is_part(file: Path) -> bool:
    return file.parent.with_suffix(".lua").exists()


def shared_definitions(folder: Path) -> str:
    """What the scripts of a folder share: ``prelude.lua``, or the files of ``prelude/`` in the order of their
    names; nothing where there is neither."""
    prelude = folder / _PRELUDE
    single = prelude.with_suffix(".lua")
    files = sorted(prelude.glob("*.lua")) if prelude.is_dir() else [single] if single.exists() else []
    return "".join(file.read_text(encoding="utf-8") for file in files)


_DEFINED = re.compile(r"local (?:function )?(\w+)")
_COMMENT = re.compile(r"--.*")
_WORD = re.compile(r"[A-Za-z_]\w*")


def _needed(shared: str, own: str) -> str:
    """What is shared, without the definitions that a script does not use. A definition begins at the margin,
    with its comment, and uses only what is defined before it."""
    parts: list[list[str]] = [[]]
    for line in shared.splitlines(keepends=True):
        if line.startswith(("local ", "--")) and any(_DEFINED.match(each) for each in parts[-1]):
            parts.append([])
        parts[-1].append(line)
    used = set(_WORD.findall(_COMMENT.sub("", own)))
    kept: list[str] = []
    for part in reversed(parts):
        defined = next((match[1] for line in part if (match := _DEFINED.match(line))), None)
        if defined is None or defined in used:
            text = "".join(part)
            used.update(_WORD.findall(_COMMENT.sub("", text)))
            kept.append(text)
    return "".join(reversed(kept))


@cache
def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


def rows(answer: Iterable[Any], width: int) -> Iterable[tuple[Any, ...]]:
    """Return a flat reply as rows of so many values, so that each can be named.

    Raises:
      ValueError: The last row is not whole.
    """
    return zip(*[iter(answer)] * width, strict=True)


BROKER_SCRIPTS = Scripts(Path(__file__).with_name("lua"))
"""Those of plain queues, and in ``pool/`` those of pool jobs: nothing else writes these."""
