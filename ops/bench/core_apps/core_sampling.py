"""Where a process's threads spend processor time, by function.

Each thread that starts gets a profile of its own (:mod:`cProfile`, with the thread's own processor time as
its clock, so that waiting costs nothing). Looking at stacks from time to time instead would show mostly the
places where Python gives its lock away. Profiling makes small functions look dearer than they are.
"""

from __future__ import annotations

import cProfile
import json
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import CodeType
from typing import Any

_LOOK_SECONDS = 0.02


def start(part: str) -> None:
    """Profile all threads that start from now on, where the bench asks for it; Python 3.11 only."""
    folder = os.environ.get("BENCH_PROFILE")
    if folder:
        profiler = Profiler(Path(folder), f"{part}-{os.getpid()}")
        threading.Thread(target=profiler.run, name="bench-profiler", daemon=True).start()
        threading.setprofile(profiler.begin)


class Profiler:
    """Writes ``<name>.json`` into ``folder``: what was spent while the file ``on`` stood there, in µs."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._profiles: list[tuple[str, cProfile.Profile]] = []

    def begin(self, *_: object) -> None:
        """Called in each new thread, at its first call of a function."""
        profile = cProfile.Profile(time.thread_time)
        self._profiles.append((_kind(threading.current_thread()), profile))
        sys.setprofile(None)
        profile.enable()

    def run(self) -> None:
        """Wait for the bench, twice."""
        (self._folder / f"{self._name}.profiled").touch()
        on = self._folder / "on"
        while not on.exists():
            time.sleep(_LOOK_SECONDS)
        before = self._spent()
        while on.exists():
            time.sleep(_LOOK_SECONDS)
        after = self._spent()
        report: dict[str, dict[str, tuple[float, float, float]]] = {}
        for (kind, function), values in after.items():
            earlier = before.get((kind, function), Counter())
            spent = tuple(values[what] - earlier[what] for what in ("calls", "own", "total"))
            if spent[0] > 0:
                report.setdefault(kind, {})[function] = (spent[0], spent[1] * 1e6, spent[2] * 1e6)
        file = self._folder / f"{self._name}.part"
        file.write_text(json.dumps(report), encoding="utf-8")
        file.rename(file.with_suffix(".json"))

    def _spent(self) -> dict[tuple[str, str], Counter[str]]:
        spent: dict[tuple[str, str], Counter[str]] = {}
        for kind, profile in list(self._profiles):
            for entry in profile.getstats():
                values = spent.setdefault((kind, _place(entry.code)), Counter())
                values["calls"] += entry.callcount
                values["own"] += entry.inlinetime  # type: ignore[assignment]
                values["total"] += entry.totaltime  # type: ignore[assignment]
        return spent


def _kind(thread: threading.Thread) -> str:
    name = type(thread).__name__ if thread.name.startswith("Thread-") else thread.name
    return name.rstrip("0123456789-_ ") or name


def _place(code: CodeType | Any) -> str:
    if not isinstance(code, CodeType):
        return str(code)
    parts = code.co_filename.split("/")
    for root in ("site-packages", "main", "workers", "cli", "python3.11"):
        if root in parts:
            parts = parts[parts.index(root) + 1 :]
    return f"{'/'.join(parts)}:{code.co_firstlineno} {code.co_name}"
