"""Trusted keys of workers."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, Self

from tether.config.settings import Settings
from tether.discovery.announcements.presence import worker_id
from tether.ids import WorkerId
from tether.loops import IDLE, Loop, Outage
from tether.telemetry.logs import get_logger
from tether.threads import STOP_SECONDS

READ_AGAIN_SECONDS = 1.0
"""Least time between two looks into an unchanged folder of keys, and time between two at enrolled ones."""

REFRESH_SECONDS = 0.2
"""Least time between two looks at the enrolled keys, however often somebody asks for one."""

OPERATOR_FILE = "operator.pub"
"""The operator's key, which signs no announcements."""

MAX_BYTES = 256
"""Of a file with a key."""

KEY = re.compile(r"[0-9a-f]{64}\Z")
"""A public key in hexadecimal."""


@dataclass(frozen=True)
class TrustSnapshot:
    """The enrolled and revoked keys at one time.

    Attributes:
      enrolled: The name of each key that was enrolled and not revoked.
      revoked: The ids of workers whose keys were revoked.
      version: Incremented with each change.
    """

    enrolled: Mapping[str, str]
    revoked: frozenset[WorkerId]
    version: int


NOTHING_ENROLLED = TrustSnapshot(MappingProxyType({}), frozenset(), 0)


class EnrolledKeys(Protocol):
    """The store of the enrolled keys. Only one thread at a time may read it."""

    def look(self) -> TrustSnapshot | None:
        """Return the current keys: the same object while nothing changes. None if they are unavailable."""


class TrustedKeys:
    """The trusted keys: those in the configuration, in the identity folder, and the enrolled ones.

    Revoked keys are never trusted, even if they are listed elsewhere. With the folder one machine needs no
    configuration: every ``*.pub`` file in it except the operator's is a key. It is read again when an unknown
    key is looked up: immediately if a file was added since, else at most each second.

    The enrolled keys are polled each second in the thread ``tether-trust``, from :meth:`start` to
    :meth:`close`, so that look-ups never wait for a database. While that is unavailable the last known keys
    apply. Thread-safe.

    Attributes:
      loop: That of the thread.
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
          keys: Keys in the configuration.
          folder: The identity folder.
          clock: Seconds.
          enrolled: The store of the enrolled keys; without it there are none.
          interval: Seconds between two polls of them.
        """
        self._given = frozenset(keys)
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        self._in_folder: frozenset[str] = frozenset()
        self._read_at: float | None = None
        self._changed_at = 0
        self._enrolled = enrolled
        self._looking = threading.Lock()
        self._looked_at: float | None = None
        self._trust = NOTHING_ENROLLED
        self._counting = self._given
        self._log = get_logger("tether.trust")
        self._outage = Outage(
            (),
            self._log,
            begins="The enrolled keys cannot be read. Continuing with the last known ones.",
            ends="The enrolled keys are read again.",
        )
        self.loop = Loop("trust", self._step, interval=interval, delay=interval, log=self._log)

    @classmethod
    def from_settings(cls, settings: Settings, enrolled: EnrolledKeys | None = None) -> Self:
        return cls(settings.presence.trusted_keys, settings.presence.identity_dir, enrolled=enrolled)

    def start(self) -> Self:
        """Read the enrolled keys, and start polling them; without a store of them, do nothing."""
        if self._enrolled is not None:
            self.refresh()
            self.loop.start()
        return self

    def close(self, timeout: float = STOP_SECONDS) -> None:
        """End the thread, waiting for that at most ``timeout`` seconds. The last known keys stay trusted."""
        self.loop.stop(timeout)

    def __call__(self, pub_key: str) -> bool:
        """Return whether announcements signed with this key, in hexadecimal, are accepted."""
        if pub_key in self._counting:
            return True
        self._read_folder()
        return pub_key in self._counting

    def snapshot(self) -> frozenset[str]:
        """Return all trusted keys: the same object while nothing changes."""
        self._read_folder()
        return self._counting

    def refresh(self) -> None:
        """Read the enrolled keys now, unless they were read within the last 200 ms."""
        if self._enrolled is None:
            return
        with self._looking:
            now = self._clock()
            if self._looked_at is not None and now - self._looked_at < REFRESH_SECONDS:
                return
            trust = self._enrolled.look()
            self._looked_at = self._clock()
            if trust is None:
                self._outage.begin()
            else:
                self._outage.end()
            if trust is not None and trust is not self._trust:
                with self._lock:
                    self._trust = trust
                    self._count()

    def _step(self) -> float:
        self.refresh()
        return IDLE

    def _read_folder(self) -> None:
        if self._folder is None:
            return
        with self._lock:
            now, changed_at = self._clock(), _changed_at(self._folder)
            is_old = self._read_at is None or now - self._read_at >= READ_AGAIN_SECONDS
            if is_old or changed_at != self._changed_at:
                self._read_at, self._changed_at = now, changed_at
                found = frozenset(keys_in(self._folder))
                if found != self._in_folder:
                    self._in_folder = found
                    self._count()

    def _count(self) -> None:
        trust = self._trust
        known = self._given | self._in_folder | trust.enrolled.keys()
        self._counting = frozenset(
            key for key in known if not trust.revoked or worker_id(key) not in trust.revoked
        )


def keys_in(folder: Path) -> dict[str, str]:
    """The workers' keys in the ``*.pub`` files of a folder, each with its file's name without the ending."""
    names = {}
    for file in _files_in(folder):
        key = read_key(file)
        if key is not None and file.name != OPERATOR_FILE:
            names[key] = file.stem
    return names


def read_key(file: Path) -> str | None:
    """The public key in a file; None where it holds none or cannot be read."""
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_BYTES).decode("ascii", "replace").strip()
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
