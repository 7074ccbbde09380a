"""The folder with all that a local Tether keeps, and the lock of the one process that uses it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import stat
import struct
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tether.client.endpoint import FILE_NAME, VERSION, state_folders
from tether.errors import AlreadyRunning, ConfigError, DiskFull

MIN_FREE_BYTES = 64_000_000
"""Bytes that must be free for a start: databases that run out of room in mid-write help nobody."""

LITTLE_FREE = 500_000_000
"""Bytes below which a start warns."""

MAX_SOCKET_PATH_BYTES = 107
"""Bytes of a Unix socket's path. Source: unix(7), ``sun_path`` less its end."""

_OWNER_ONLY_FOLDER = 0o700
_OWNER_ONLY_FILE = 0o600
_NOT_IN_PATHS = re.compile(r"[\x00-\x1f\x7f?#]")
_FLOCK = "hhqqi"


def choose_folder(chosen: Path | None, environ: Mapping[str, str], working_folder: Path, home: Path) -> Path:
    """Return the state folder: the chosen one, else ``TETHER_DIR``, else ``.tether`` here if it exists, else
    ``~/.tether``."""
    if chosen is not None:
        return chosen.absolute()
    *others, last = state_folders(environ, working_folder, home)
    return next((folder for folder in others if folder.is_dir()), last).absolute()


@dataclass(frozen=True)
class StateFolder:
    """Where everything is in a state folder."""

    path: Path

    @property
    def endpoint(self) -> Path:
        return self.path / FILE_NAME

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def api_key(self) -> Path:
        return self.path / "api_key"

    @property
    def database(self) -> Path:
        return self.path / "tether.db"

    @property
    def redis(self) -> Path:
        return self.path / "redis"

    @property
    def run(self) -> Path:
        return self.path / "run"

    @property
    def identity(self) -> Path:
        return self.path / "identity"

    @property
    def swarm(self) -> Path:
        """Of the sidecar's packages."""
        return self.path / "swarm"

    @property
    def network_secret(self) -> Path:
        return self.path / "network_secret"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def parts(self) -> Path:
        return self.path / "parts.json"

    @property
    def backups(self) -> Path:
        return self.path / "backups"

    def log_of(self, part: str) -> Path:
        return self.logs / f"{part}.log"

    def prepare(self) -> None:
        """Make the folder and those in it, for their owner alone.

        Raises:
          ConfigError: It cannot be used, or is not this user's alone.
        """
        if _NOT_IN_PATHS.search(str(self.path)):
            raise ConfigError(
                f"the state folder {str(self.path)!r} has '?', '#' or a control character in its path: "
                "choose another one with --dir"
            )
        try:
            self.path.mkdir(mode=_OWNER_ONLY_FOLDER, parents=True, exist_ok=True)
            self._check_owner()
            for folder in (self.redis, self.run, self.identity, self.logs):
                folder.mkdir(mode=_OWNER_ONLY_FOLDER, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"the state folder {self.path} cannot be used: {error.strerror}; choose a place that this "
                "user may write to, with --dir"
            ) from error

    def _check_owner(self) -> None:
        status = self.path.stat()
        if status.st_uid != os.geteuid():
            raise ConfigError(
                f"the state folder {self.path} belongs to user {status.st_uid}, not to you: choose another "
                "one with --dir"
            )
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ConfigError(
                f"the state folder {self.path} is writable by other users: run chmod 700 on it, or choose "
                "another one with --dir"
            )
        # What others could only read may hold prompts and answers.
        self.path.chmod(_OWNER_ONLY_FOLDER)

    def write_endpoint(self, url: str, api_key: str, pid: int) -> None:
        """Say where the gateway is, for clients on this machine."""
        document = {"v": VERSION, "url": url, "api_key": api_key, "pid": pid}
        write_owner_only(self.endpoint, json.dumps(document) + "\n")


def write_owner_only(path: Path, text: str) -> None:
    """Replace a file in one step; it is its owner's alone.

    Raises:
      OSError: It cannot be written. The old one stays.
    """
    aside = path.with_name(path.name + ".new")
    opened = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _OWNER_ONLY_FILE)
    with open(opened, "w", encoding="utf-8") as file:
        file.write(text)
    aside.rename(path)


def free_bytes(folder: Path) -> int:
    """Bytes that this user may still write where the folder is."""
    return shutil.disk_usage(folder).free


def check_room(folder: Path, free: Callable[[Path], int] = free_bytes) -> str:
    """A warning where little room is left; empty where there is enough.

    Raises:
      DiskFull: Too little is left for a start.
    """
    left = free(folder)
    shown = f"{left / 1e6:.0f} MB are free in {folder}"
    if left < MIN_FREE_BYTES:
        raise DiskFull(
            f"the disk is nearly full: {shown}, and a start needs {MIN_FREE_BYTES / 1e6:.0f} MB; make "
            "room, or choose a folder on another disk with --dir"
        )
    return f"{shown}: free some space soon" if left < LITTLE_FREE else ""


def socket_path(folder: StateFolder, environ: Mapping[str, str]) -> tuple[Path, Path | None]:
    """Where the Redis server shall listen, and the folder made for that, which its maker removes.

    No folder is made where the path in the state folder is short enough for a Unix socket.
    """
    inside = folder.run / "redis.sock"
    if len(os.fsencode(inside)) <= MAX_SOCKET_PATH_BYTES:
        return inside, None
    told = environ.get("XDG_RUNTIME_DIR", "")
    is_fit = told.startswith("/") and len(os.fsencode(told)) < 60 and os.access(told, os.W_OK | os.X_OK)
    made = Path(tempfile.mkdtemp(prefix="tether-", dir=told if is_fit else "/tmp"))
    return made / "redis.sock", made


class FolderLock:
    """Held by the one ``tether up`` that uses a state folder; it ends with the process, however that ends.

    A POSIX record lock: the kernel names its holder, so nobody has to trust the number in the file. A process
    loses it when it closes any descriptor of the file (fcntl(2)), so nothing else here opens that.
    """

    def __init__(self, path: Path, file: int) -> None:
        self._path = path
        self._file = file

    @classmethod
    def take(cls, folder: StateFolder) -> Self:
        """Take the lock.

        Raises:
          AlreadyRunning: Another process holds it. The message says which one.
          ConfigError: The file cannot be used.
        """
        path = folder.lock
        while True:
            try:
                file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _OWNER_ONLY_FILE)
            except OSError as error:
                raise ConfigError(f"the lock {path} cannot be used: {error.strerror}") from error
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                os.close(file)
                raise AlreadyRunning(_running_already(folder)) from None
            # Whoever held it before may have removed the file meanwhile: then another one is the lock now.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(path), os.fstat(file)):
                    os.ftruncate(file, 0)
                    os.write(file, b"%d\n" % os.getpid())
                    return cls(path, file)
            os.close(file)

    def release(self) -> None:
        """Remove the lock. A second call does nothing."""
        file, self._file = self._file, -1
        if file >= 0:
            self._path.unlink(missing_ok=True)
            os.close(file)


def holder_of(folder: StateFolder) -> int | None:
    """The process that holds the lock; None where none does. Not for the process that may hold it itself."""
    try:
        file = os.open(folder.lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        lock = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked))
    except OSError:
        return None
    finally:
        os.close(file)
    kind, *_, pid = lock
    return None if kind == fcntl.F_UNLCK else int(pid)


def _running_already(folder: StateFolder) -> str:
    url = ""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        url = f"{json.loads(folder.endpoint.read_text())['url']}, "
    pid = holder_of(folder)
    process = f"process {pid}" if pid else "another process"
    return f"Tether is already running here: {url}{process}; see `tether status`, stop it with `tether down`"
