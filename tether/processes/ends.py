"""How a process ended, as whoever watched it can tell."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path

from tether.deaths import ENDED, MEMORY_ERROR, OUT_OF_MEMORY

MEMORY_ERROR_STATUS = 12
"""Exit status of a process that was refused memory."""

_SIGKILL = -9


def how_it_ended(status: int, *, was_told: bool, oom_kills: int = 0) -> str:
    """The end of a process in the words of :mod:`tether.deaths`.

    Args:
      status: Its exit status; less than 0 for a signal.
      was_told: Whether it had been asked to end.
      oom_kills: How many processes of its cgroup the kernel has killed for want of memory since it began.
    """
    if was_told or status == 0:
        return ENDED
    if status == _SIGKILL and oom_kills > 0:
        return OUT_OF_MEMORY
    if status == MEMORY_ERROR_STATUS:
        return MEMORY_ERROR
    return f"signal {-status}" if status < 0 else f"exit {status}"


def described(status: int) -> str:
    """The end of a process in a person's words, by its exit status; less than 0 for a signal."""
    if status >= 0:
        return f"exit status {status}"
    with suppress(ValueError):
        return f"killed by {signal.Signals(-status).name}"
    return f"killed by signal {-status}"


def memory_events_of(pid: int, *, proc: Path = Path("/proc"), root: Path = Path("/sys/fs/cgroup")) -> Path:
    """Where the kernel counts what happens to the memory of a process's cgroup (version 2); a file that is
    not there where there is none.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html, ``memory.events``.
    """
    with suppress(OSError):
        for line in (proc / str(pid) / "cgroup").read_text("utf-8").splitlines():
            if line.startswith("0::/"):
                return root / line.removeprefix("0::/") / "memory.events"
    return root / "memory.events"


def oom_kills(memory_events: Path) -> int:
    """How many processes of a cgroup the kernel has killed for want of memory; 0 where that is not told."""
    with suppress(OSError, ValueError):
        for line in memory_events.read_text("ascii").splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0
