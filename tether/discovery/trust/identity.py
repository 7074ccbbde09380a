"""The identity of a process in a network: its own key, held while it runs, and a counter of its starts."""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from nacl.signing import SigningKey

from tether.discovery.announcements.presence import boot_id, worker_id
from tether.errors import ConfigError
from tether.ids import BootId, WorkerId

MAX_SLOTS = 4_096
"""Processes of one kind that can share one folder."""

_OWNER_ONLY_FOLDER = 0o700
_OWNER_ONLY_FILE = 0o600
_PUBLIC_FILE = 0o644
_SEED_BYTES = 32


@dataclass
class Identity:
    """The key of one process. No other process has it until :meth:`close` or the process exits.

    Attributes:
      name: The slot in the folder, as in ``worker-1``.
      key: Signs what it announces, and is what its peers know it by.
      boot_counter: How often this key was claimed, this time included; greater after :meth:`rise_above`.
    """

    name: str
    key: SigningKey
    boot_counter: int
    _lock: int
    _counter_file: Path

    @classmethod
    def claim(cls, folder: Path, kind: str = "worker") -> Self:
        """Claim the first free slot in ``folder``; its key is generated if missing.

        The boot counter is incremented and synced to disk before this returns: no two runs share a number,
        however they end.

        Args:
          kind: ``worker`` or ``orchestrator``: prefix of the slots' names.

        Raises:
          ConfigError: The folder or a file in it cannot be used.
        """
        try:
            folder.mkdir(mode=_OWNER_ONLY_FOLDER, parents=True, exist_ok=True)
            for number in range(1, MAX_SLOTS + 1):
                lock = _try_lock(folder / f"{kind}-{number}.lock")
                if lock is not None:
                    return cls._open(folder, f"{kind}-{number}", lock)
        except OSError as error:
            raise ConfigError(
                f"the {kind}'s identity in {folder} cannot be used: {error.strerror}; make it writable for "
                "this user, or choose another folder with presence.identity_dir"
            ) from error
        raise ConfigError(
            f"all {MAX_SLOTS} identities of the {kind}s in {folder} are in use: choose another folder"
        )

    @classmethod
    def _open(cls, folder: Path, name: str, lock: int) -> Self:
        try:
            base = folder / name
            seed_file, counter_file = base.with_suffix(".key"), base.with_suffix(".boot")
            if not seed_file.exists():
                # The counter is first: where there is a key there is its counter.
                _write(counter_file, b"0\n", _OWNER_ONLY_FILE)
                write_private_key(seed_file, SigningKey.generate())
            key = read_private_key(seed_file)
            counter = _read_counter(counter_file, base) + 1
            write_public_key(base.with_suffix(".pub"), key)
            _write(counter_file, b"%d\n" % counter, _OWNER_ONLY_FILE)
        except BaseException:
            os.close(lock)
            raise
        return cls(name=name, key=key, boot_counter=counter, _lock=lock, _counter_file=counter_file)

    @property
    def counter_file(self) -> Path:
        """Where the boot counter is kept."""
        return self._counter_file

    @property
    def place(self) -> int:
        """Tells this slot from a copy of its folder: the number of its lock's file."""
        return os.fstat(self._lock).st_ino

    @property
    def pub_key(self) -> str:
        """The public key, in hexadecimal."""
        return self.key.verify_key.encode().hex()

    @property
    def worker_id(self) -> WorkerId:
        return worker_id(self.pub_key)

    @property
    def boot_id(self) -> BootId:
        """Identifies this run of the worker."""
        return boot_id(self.worker_id, self.boot_counter)

    def rise_above(self, counter: int) -> BootId:
        """Count this run anew, by a boot counter greater than that and its own, and return its new boot id.

        Raises:
          OSError: It cannot be written down; nothing has changed.
        """
        counter = max(self.boot_counter, counter) + 1
        _write(self._counter_file, b"%d\n" % counter, _OWNER_ONLY_FILE)
        self.boot_counter = counter
        return self.boot_id

    def close(self) -> None:
        """Release the key to other processes. Idempotent."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            # A process that another thread has just forked still has this file until it runs its own program.
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)

    def __repr__(self) -> str:
        return f"Identity({self.name}, {self.boot_id})"


def _try_lock(path: Path) -> int | None:
    opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _OWNER_ONLY_FILE)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(opened)
        return None
    except BaseException:
        os.close(opened)
        raise
    return opened


def read_private_key(path: Path) -> SigningKey:
    """The key in a file.

    Raises:
      ConfigError: Others can read it, or it holds no key.
      OSError: It cannot be read.
    """
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"others can read the key {path}: run chmod 600 on it")
    with contextlib.suppress(ValueError):
        seed = bytes.fromhex(path.read_text("ascii").strip())
        if len(seed) == _SEED_BYTES:
            return SigningKey(seed)
    raise ConfigError(
        f"{path} is not the key of a process: put back the right file, or remove all {path.stem}.* files"
    )


def write_private_key(path: Path, key: SigningKey) -> None:
    """Put a key into a file that only this user can read, on disk when this returns."""
    _write(path, key.encode().hex().encode() + b"\n", _OWNER_ONLY_FILE)


def write_public_key(path: Path, key: SigningKey) -> None:
    """Put the public half of a key into a file, on disk when this returns."""
    _write(path, key.verify_key.encode().hex().encode() + b"\n", _PUBLIC_FILE)


def write_owner_only_file(path: Path, data: bytes) -> None:
    """Put data into a file that only this user can read, on disk when this returns.

    Raises:
      OSError: It cannot be written; what stood there still does.
    """
    _write(path, data, _OWNER_ONLY_FILE)


def _read_counter(path: Path, base: Path) -> int:
    with contextlib.suppress(ValueError, FileNotFoundError):
        text = path.read_text("ascii").strip()
        if text.isdigit():
            return int(text)
    raise ConfigError(
        f"{path} does not hold the number of starts of the key beside it: put back the right file, or remove "
        f"{base.name}.key too, so that a new key is made"
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    """Replace a file in one step, on disk when this returns."""
    aside = path.with_name(path.name + ".new")
    opened = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.fchmod(opened, mode)
        os.write(opened, data)
        os.fsync(opened)
    finally:
        os.close(opened)
    aside.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
