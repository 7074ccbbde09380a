"""The operator's key, which signs commands to workers, and whose commands count."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from nacl.signing import SigningKey

from tether.config.settings import Settings
from tether.discovery.trust.identity import read_private_key, write_private_key, write_public_key
from tether.discovery.trust.trusted_keys import OPERATOR_FILE, read_key
from tether.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

PRIVATE_FILE = "operator.key"
LOCK_FILE = "operator.lock"

_OWNER_ONLY_FOLDER = 0o700
_OWNER_ONLY_FILE = 0o600


def operator_key(folder: Path) -> SigningKey:
    """The operator's key in a folder of identities. It is made where there is none; ``operator.pub`` beside
    it holds its public half.

    Raises:
      ConfigError: The folder or a file in it cannot be used.
    """
    file = folder / PRIVATE_FILE
    try:
        folder.mkdir(mode=_OWNER_ONLY_FOLDER, parents=True, exist_ok=True)
        with _locked(folder / LOCK_FILE):
            if not file.exists():
                write_private_key(file, SigningKey.generate())
            key = read_private_key(file)
            if read_key(folder / OPERATOR_FILE) != key.verify_key.encode().hex():
                write_public_key(folder / OPERATOR_FILE, key)
    except OSError as error:
        raise ConfigError(
            f"the operator's key {file} cannot be used: {error.strerror}; make it writable for this user, or "
            "choose another folder with presence.identity_dir"
        ) from error
    return key


class OperatorKeys:
    """The public keys whose commands count: those given, and that in ``operator.pub``, which is read again
    where it has changed. Safe to use from many threads."""

    def __init__(self, given: Iterable[str], folder: Path) -> None:
        """
        Args:
          given: In hexadecimal.
          folder: Of identities.
        """
        self._given = frozenset(given)
        self._file = folder / OPERATOR_FILE
        self._lock = threading.Lock()
        self._known_state: tuple[int, ...] | None = None
        self._keys = self._given

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(settings.presence.operator_keys, settings.presence.identity_dir)

    def __call__(self, pub_key: str) -> bool:
        """Whether commands signed with this key, in hexadecimal, count."""
        return pub_key in self.snapshot()

    def snapshot(self) -> frozenset[str]:
        """All keys that count now: the same object while nothing changes."""
        with self._lock:
            state = _state_of(self._file)
            if state != self._known_state:
                key = read_key(self._file)
                self._known_state, self._keys = state, self._given | ({key} if key else set())
            return self._keys


def _state_of(file: Path) -> tuple[int, ...]:
    try:
        status = file.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_size


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    opened = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _OWNER_ONLY_FILE)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)
