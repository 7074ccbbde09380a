"""The Tether that `tether up` runs on this machine: found, and stopped, from another process."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tether.errors import AlreadyRunning
from tether.local.part_states import Stack, end_left_overs, read_stack, wait_for_end, watched
from tether.local.state_folder import FolderLock, StateFolder, holder_of

STOP_SECONDS = 90.0
"""How long a stop in order may take: each part has a limit of its own below that."""

NOW_SECONDS = 15.0
"""How long a stop may take for which nothing is waited: workers hand over, gateway and Redis close."""

KILL_SECONDS = 5.0
"""What parts get to end by themselves once what kept them is killed."""


@dataclass(frozen=True)
class Running:
    """A running ``tether up``.

    Attributes:
      pid: Its process.
      stack: What it says of its parts; None where it has not said anything yet.
    """

    folder: StateFolder
    pid: int
    stack: Stack | None

    @property
    def redis_socket(self) -> Path:
        """Where its own Redis server listens, if it has one."""
        runtime = self.stack.runtime if self.stack else ""
        return (Path(runtime) if runtime else self.folder.run) / "redis.sock"


def find_running(folders: Iterable[Path]) -> Running | None:
    """The ``tether up`` that uses the first of the folders that one uses."""
    for path in folders:
        folder = StateFolder(path)
        pid = holder_of(folder)
        if pid is not None:
            stack = read_stack(folder.parts)
            # What another one left behind says nothing of this one.
            return Running(folder, pid, stack if stack is not None and stack.pid == pid else None)
    return None


def stop_running(running: Running, within: float = STOP_SECONDS) -> bool:
    """Stop it gracefully, and return whether it has exited within so many seconds."""
    with watched(running.pid, 0) as descriptor:
        # Asked again: only the holder of the lock is what we look for, not who got its number since.
        if descriptor is None or holder_of(running.folder) != running.pid:
            return True
        _send(descriptor, signal.SIGTERM)
        return wait_for_end(descriptor, within)


def stop_running_now(running: Running, clock: Callable[[], float] = time.monotonic) -> None:
    """Stop it without waiting for what runs, which is kept. What does not stop so is killed; its parts end by
    themselves then, and those that do not in time are killed too. Returns at the end of all of them."""
    with watched(running.pid, 0) as descriptor:
        if descriptor is not None and holder_of(running.folder) == running.pid:
            # Two of a kind at once would be one.
            for number in (signal.SIGTERM, signal.SIGINT):
                _send(descriptor, number)
            if wait_for_end(descriptor, NOW_SECONDS):
                return
            _send(descriptor, signal.SIGKILL)
            wait_for_end(descriptor, KILL_SECONDS)
    # Read again: parts may have been started since.
    stack = read_stack(running.folder.parts)
    if stack is not None:
        end_left_overs(stack.parts, KILL_SECONDS, clock)
    with contextlib.suppress(AlreadyRunning):
        lock = FolderLock.take(running.folder)
        running.folder.endpoint.unlink(missing_ok=True)
        (running.folder.run / "redis.sock").unlink(missing_ok=True)
        lock.release()


def _send(descriptor: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, number)
