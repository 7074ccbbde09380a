"""Whose announcements count."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, Self

from tether.config import Settings
from tether.discovery.announcements.presence import worker_id
from tether.telemetry.logs import get_logger

READ_AGAIN_SECONDS = 1.0
"""Least time between two looks into an unchanged folder of keys, and time between two at enrolled ones."""

REFRESH_SECONDS = 0.2
"""Least time between two looks at the enrolled keys, however often somebody asks for one."""

OPERATOR_FILE = "operator.pub"
"""The operator's key, which signs no announcements."""

MOST_BYTES = 256
"""Of a file with a key."""

KEY = re.compile(r"[0-9a-f]{64}\Z")
"""A public key in hexadecimal."""


@dataclass(frozen=True)
class Trust:
    """Whose keys count, as it was at one time.

    Attributes:
      enrolled: The name of each key that was enrolled and not revoked.
      revoked: The ids of workers whose keys count no longer.
      version: Grows with each change.
    """

    enrolled: Mapping[str, str]
    revoked: frozenset[str]
    version: int


NOTHING_ENROLLED = Trust(MappingProxyType({}), frozenset(), 0)


class EnrolledKeys(Protocol):
    """Where the enrolled keys are kept. Only one thread at a time looks."""

    def look(self) -> Trust | None:
        """The keys as they are now: the same object while nothing changes. None where nobody answers."""


class TrustedKeys:
    """The keys of the configuration, those in the folder of the workers' keys, and those that were enrolled.

    Keys that were revoked never count, whatever else names them. The folder makes one machine work without
    configuration: every ``*.pub`` file in it but the operator's is a key. It is read again when a key is
    asked for that is not known: at once where a file was added since, else at most each second.

    The enrolled keys are looked at each second in the thread ``tether-trust``, from :meth:`start` to
    :meth:`close`, so that whoever asks for a key never waits for a database. While that is away the keys last
    known count. Safe to use from many threads.
    """

    def __init__(
        self,
        keys: Iterable[str],
        folder: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        enrolled: EnrolledKeys | None = None,
        interval: float = READ_AGAIN_SECONDS,
    ) -> None:
        """
        Args:
          keys: Those of the configuration.
          folder: Where the workers' keys are.
          clock: Seconds.
          enrolled: Where the enrolled keys are kept; without, there are none.
          interval: Seconds between two looks at them.
        """
        self._given = frozenset(keys)
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        self._found: frozenset[str] = frozenset()
        self._read_at: float | None = None
        self._changed_at = 0
        self._enrolled = enrolled
        self._interval = interval
        self._looking = threading.Lock()
        self._looked_at: float | None = None
        self._is_away = False
        self._trust = NOTHING_ENROLLED
        self._counting = self._given
        self._log = get_logger("tether.trust")
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @classmethod
    def from_settings(cls, settings: Settings, enrolled: EnrolledKeys | None = None) -> Self:
        return cls(settings.presence.trusted_keys, settings.presence.identity_dir, enrolled=enrolled)

    def start(self) -> Self:
        """Look at the enrolled keys, and go on looking; where none are kept anywhere, do nothing."""
        if self._enrolled is not None and self._thread is None:
            self.refresh()
            self._thread = threading.Thread(target=self._run, name="tether-trust", daemon=True)
            self._thread.start()
        return self

    def close(self) -> None:
        """End the thread. What counted last goes on counting."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def __call__(self, pub_key: str) -> bool:
        """Whether announcements signed with this key, in hexadecimal, count."""
        if pub_key in self._counting:
            return True
        self._read_folder()
        return pub_key in self._counting

    def snapshot(self) -> frozenset[str]:
        """All keys that count now: the same object while nothing changes."""
        self._read_folder()
        return self._counting

    def refresh(self) -> None:
        """Look at the enrolled keys now, unless somebody did within the last 200 ms."""
        if self._enrolled is None:
            return
        with self._looking:
            now = self._clock()
            if self._looked_at is not None and now - self._looked_at < REFRESH_SECONDS:
                return
            trust = self._enrolled.look()
            self._looked_at = self._clock()
            self._tell_whether_away(trust is None)
            if trust is not None and trust is not self._trust:
                with self._lock:
                    self._trust = trust
                    self._count()

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            try:
                self.refresh()
            except Exception:
                self._log.exception("A look at the enrolled keys failed. Going on.")

    def _tell_whether_away(self, is_away: bool) -> None:
        if is_away and not self._is_away:
            self._log.warning("The enrolled keys cannot be read. Going on with those last known.")
        self._is_away = is_away

    def _read_folder(self) -> None:
        if self._folder is None:
            return
        with self._lock:
            now, changed_at = self._clock(), _changed_at(self._folder)
            is_old = self._read_at is None or now - self._read_at >= READ_AGAIN_SECONDS
            if is_old or changed_at != self._changed_at:
                self._read_at, self._changed_at = now, changed_at
                found = frozenset(keys_in(self._folder))
                if found != self._found:
                    self._found = found
                    self._count()

    def _count(self) -> None:
        trust = self._trust
        known = self._given | self._found | trust.enrolled.keys()
        self._counting = frozenset(
            key for key in known if not trust.revoked or worker_id(key) not in trust.revoked
        )


def keys_in(folder: Path) -> dict[str, str]:
    """The workers' keys in the ``*.pub`` files of a folder, each with its file's name without the ending."""
    found = {}
    for file in _files_in(folder):
        key = read_key(file)
        if key is not None and file.name != OPERATOR_FILE:
            found[key] = file.stem
    return found


def read_key(file: Path) -> str | None:
    """The public key in a file; None where it holds none or cannot be read."""
    try:
        with file.open("rb") as opened:
            text = opened.read(MOST_BYTES).decode("ascii", "replace").strip()
    except OSError:
        return None
    return text if KEY.match(text) else None


def _files_in(folder: Path) -> list[Path]:
    try:
        return sorted(folder.glob("*.pub"))
    except OSError:
        return []


def _changed_at(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0
