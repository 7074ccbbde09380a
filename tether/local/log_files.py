"""The log files of the parts: kept short, and read from their ends."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from tether.loops import IDLE, Loop

MAX_LOG_BYTES = 10_000_000
"""Bytes of a log; what is longer becomes the old one, and there is one old one."""

LOOK_SECONDS = 60.0

_BLOCK = 65_536


def rotate(path: Path, max_bytes: int = MAX_LOG_BYTES) -> bool:
    """Make a log that has grown too long the old one. Whoever writes at its end goes on doing so.

    Lines that are written between the copy and the cut are lost.

    Returns:
      Whether it was too long.

    Raises:
      OSError: It cannot be copied or cut.
    """
    try:
        if path.stat().st_size <= max_bytes:
            return False
    except FileNotFoundError:
        return False
    old = path.with_name(path.name + ".1")
    try:
        shutil.copyfile(path, old)
        old.chmod(0o600)
    except OSError:
        # Without room for the copy the log still must not fill the disk.
        old.unlink(missing_ok=True)
    os.truncate(path, 0)
    return True


class LogRotation:
    """Looks at all logs of a folder at its start and each minute. Owns the thread ``tether-log-rotation``.

    Attributes:
      loop: That of the thread.
    """

    def __init__(
        self, folder: Path, *, max_bytes: int = MAX_LOG_BYTES, look_seconds: float = LOOK_SECONDS
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._log = structlog.stdlib.get_logger(__name__)
        self.loop = Loop("log-rotation", self._step, interval=look_seconds, log=self._log)

    def start(self) -> None:
        self.loop.start()

    def stop(self) -> None:
        self.loop.stop()

    def _step(self) -> float:
        for path in sorted(self._folder.glob("*.log")):
            try:
                rotate(path, self._max_bytes)
            except OSError as error:
                self._log.warning("A log cannot be shortened.", file=str(path), why=error.strerror)
        return IDLE


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a file; none where there is no file.

    Raises:
      OSError: It cannot be read.
    """
    if count <= 0:
        return []
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return []
    with file:
        at = file.seek(0, os.SEEK_END)
        data = b""
        while at > 0 and data.count(b"\n") <= count:
            step = min(_BLOCK, at)
            at -= step
            file.seek(at)
            data = file.read(step) + data
    # Only line feeds end lines: what a part printed may hold other characters that Python splits at.
    lines = data.decode("utf-8", "replace").split("\n")
    return (lines[:-1] if lines[-1] == "" else lines)[-count:]


@dataclass
class FollowedFile:
    """Reads what is appended to a file after this was created, across rotations."""

    path: Path
    place: int = 0
    begun: bytes = b""

    @classmethod
    def at_end(cls, path: Path) -> FollowedFile:
        try:
            return cls(path, path.stat().st_size)
        except OSError:
            return cls(path)

    def new_lines(self) -> Sequence[str]:
        """The lines that were ended since the last call.

        Raises:
          OSError: It cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self.place:
                    self.place, self.begun = 0, b""
                file.seek(self.place)
                added = file.read()
        except FileNotFoundError:
            return ()
        self.place += len(added)
        *lines, self.begun = (self.begun + added).split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]
