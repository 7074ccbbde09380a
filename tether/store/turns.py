"""Turns of processes that write to one SQLite file: its own lock goes to whoever asks at the right moment."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

LOOK_SECONDS = 0.001
"""Between two looks at a lock that another process holds."""

PATIENCE_SECONDS = 2.0
"""After so long it is written without a turn: then SQLite's lock alone decides."""

SHORT_PATIENCE_SECONDS = 0.05
"""The same once a turn could not be had, until one is had again: a process that is stopped with one in its
hands must not let each transaction of others wait."""

TRY_AGAIN_SECONDS = 5.0
LONGER_PATIENCE_SECONDS = 0.5
"""Meanwhile it waits longer once in so long: beside others that write all the time, each in its turn, none
comes sooner, and who writes without one is passed by for seconds."""


class WriteTurns:
    """Lets processes write in turn. One thread uses it.

    Two locks on files, in the way of a turnstile: who writes holds the second, who is next holds the first.
    Whoever has written and wants to again finds the first held by the next one, and comes after it. Without
    that, a waiting writer sleeps up to 100 ms between two looks, and others that come meanwhile pass it by.

    The locks end with their process. That a transaction excludes others is SQLite's own doing: where a turn
    cannot be had, nothing is wrong but the order.
    """

    def __init__(
        self,
        database: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """
        Args:
          database: The file of the database; the locks are beside it.
          clock: Seconds.
          sleep: How it waits, in seconds.
        """
        self._paths = [database.with_name(f"{database.name}-{name}") for name in ("next", "turn")]
        self._files: list[int] = []
        self._missed_at: float | None = None
        self._clock = clock
        self._sleep = sleep

    @contextlib.contextmanager
    def take(self) -> Iterator[None]:
        """Wait for this process's turn, which lasts until the block ends."""
        patience = self._patience()
        until = self._clock() + patience
        held = []
        try:
            with contextlib.suppress(OSError):
                entrance, turn = self._open()
                if self._lock(entrance, until):
                    held.append(entrance)
                    if self._lock(turn, until):
                        held.append(turn)
                    fcntl.flock(entrance, fcntl.LOCK_UN)
                    held.remove(entrance)
                if held:
                    self._missed_at = None
                elif patience > SHORT_PATIENCE_SECONDS:
                    self._missed_at = self._clock()
            yield
        finally:
            for file in held:
                with contextlib.suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_UN)

    def _patience(self) -> float:
        if self._missed_at is None:
            return PATIENCE_SECONDS
        is_due = self._clock() - self._missed_at >= TRY_AGAIN_SECONDS
        return LONGER_PATIENCE_SECONDS if is_due else SHORT_PATIENCE_SECONDS

    def close(self) -> None:
        """Close the files."""
        files, self._files = self._files, []
        for file in files:
            os.close(file)

    def _open(self) -> tuple[int, int]:
        if any(os.fstat(file).st_nlink == 0 for file in self._files):
            # Somebody removed one: processes that start now lock another one of that name.
            self.close()
        # One may be open already, where the other could not be opened before.
        for path in self._paths[len(self._files) :]:
            self._files.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        entrance, turn = self._files
        return entrance, turn

    def _lock(self, file: int, until: float) -> bool:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if self._clock() >= until:
                    return False
                self._sleep(LOOK_SECONDS)
            else:
                return True
