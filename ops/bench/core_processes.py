"""Processes and all that descend from them, from `/proc`: who they are, and what they have used."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def families(roots: dict[int, str]) -> dict[int, str]:
    """The processes with these ids and all that descend from them, each with the name of its root."""
    parents = {}
    # Processes end while they are looked at.
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            parents[int(name)] = int(_fields(Path(f"/proc/{name}/stat"))[1])
    found = {}
    for pid in parents:
        ancestor = pid
        while ancestor in parents and ancestor not in roots:
            ancestor = parents[ancestor]
        if ancestor in roots:
            found[pid] = roots[ancestor]
    return found


def processor_seconds(roots: dict[int, str]) -> dict[str, float]:
    """Processor time that the families of these processes have used, by the names of their roots."""
    ticks = os.sysconf("SC_CLK_TCK")
    used = dict.fromkeys(roots.values(), 0.0)
    for pid, name in families(roots).items():
        with contextlib.suppress(OSError):
            # User and system time of the process and of its children that have ended.
            used[name] += sum(map(int, _fields(Path(f"/proc/{pid}/stat"))[11:15])) / ticks
    return used


def _fields(file: Path) -> list[str]:
    """The fields behind the process's name, which may have anything in it: state, parent..."""
    return file.read_text(encoding="utf-8").rpartition(")")[2].split()
