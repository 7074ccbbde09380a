"""Whose announcements count."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

from tether.config import Settings

READ_AGAIN_SECONDS = 1.0
"""Least time between two looks into the folder of keys."""

_MOST_BYTES = 256
_KEY = re.compile(r"[0-9a-f]{64}\Z")


class TrustedKeys:
    """The keys of the configuration, and every ``*.pub`` file in the folder of the workers' keys.

    So one machine works without configuration. The folder is read again when a key is asked for that is not
    known: at once where a file was added since, else at most each second. Safe to use from many threads.
    """

    def __init__(
        self, keys: Iterable[str], folder: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._given = frozenset(keys)
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        self._found: frozenset[str] = frozenset()
        self._read_at: float | None = None
        self._changed_at = 0

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(settings.presence.trusted_keys, settings.presence.identity_dir)

    def __call__(self, pub_key: str) -> bool:
        """Whether announcements signed with this key, in hexadecimal, count."""
        if pub_key in self._given or pub_key in self._found:
            return True
        with self._lock:
            now, changed_at = self._clock(), _changed_at(self._folder)
            is_old = self._read_at is None or now - self._read_at >= READ_AGAIN_SECONDS
            if is_old or changed_at != self._changed_at:
                self._read_at, self._changed_at = now, changed_at
                self._found = frozenset(_keys_in(self._folder)) if self._folder else frozenset()
        return pub_key in self._found


def _changed_at(folder: Path | None) -> int:
    try:
        return folder.stat().st_mtime_ns if folder else 0
    except OSError:
        return 0


def _keys_in(folder: Path) -> Iterable[str]:
    try:
        files = sorted(folder.glob("*.pub"))
    except OSError:
        return
    for file in files:
        try:
            with file.open("rb") as opened:
                text = opened.read(_MOST_BYTES).decode("ascii", "replace").strip()
        except OSError:
            continue
        if _KEY.match(text):
            yield text
