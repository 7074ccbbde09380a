"""Parts of an installation under test: each a real `tether` command, started again whenever it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import psutil
from core_processes import families
from core_stage import wait_for

READY_SECONDS = 90.0
LOOK_SECONDS = 0.05
MIN_LIFE_SECONDS = 1.0
PAUSE_SECONDS = 0.5
"""Before a command is started again that lived for less than the former."""


class PartLog:
    """The JSON lines that a part's processes have logged.

    Attributes:
      child_pid: The child that became ready last.
      boot_id: Under which the last of its worker processes draws.
      holder: The name of the last of its orchestrator processes in the leases of loops.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.child_pid: int | None = None
        self.boot_id = ""
        self.holder = ""
        self._read_to = 0
        self._lock = threading.Lock()

    def mark(self) -> int:
        """Where the log ends now."""
        return self.file.stat().st_size if self.file.exists() else 0

    def since(self, mark: int) -> list[dict[str, Any]]:
        """The lines from a mark on. What is no JSON is left out."""
        if not self.file.exists():
            return []
        with self.file.open("rb") as opened:
            opened.seek(mark)
            return _lines_of(opened.read())

    def look(self) -> Self:
        """Read what is new."""
        with self._lock:
            if self.file.exists():
                with self.file.open("rb") as opened:
                    opened.seek(self._read_to)
                    text = opened.read()
                text = text[: text.rfind(b"\n") + 1]
                self._read_to += len(text)
                for line in _lines_of(text):
                    self._note(line)
        return self

    def _note(self, line: Mapping[str, Any]) -> None:
        if line.get("event") == "A child is ready." and str(line.get("child", "")).endswith("-1"):
            self.child_pid = int(line["child_pid"])
        elif line.get("event") == "Serving." and "worker" in line:
            self.boot_id = str(line["worker"])
        elif line.get("event") == "Orchestrating.":
            self.holder = str(line["holder"])


class Part:
    """One command, which supervises processes of its own. It owns the thread ``chaos-part-<name>``, which
    starts it again whenever it has ended, until :meth:`close`.

    Attributes:
      name: Unique in an installation.
      log: What it and its processes log.
    """

    def __init__(self, name: str, arguments: Sequence[str], environ: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.log = PartLog(folder / f"{name}.log")
        self._command = [sys.executable, "-m", "tether_cli", *arguments]
        self._environ = dict(environ)
        self._folder = folder
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._process = self._start()
        self._thread = threading.Thread(target=self._keep, name=f"chaos-part-{name}", daemon=True)
        self._thread.start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.file.open("ab") as log:
            return subprocess.Popen(
                self._command,
                env=self._environ,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _keep(self) -> None:
        while not self._closing.is_set():
            began = time.monotonic()
            self._process.wait()
            if time.monotonic() - began < MIN_LIFE_SECONDS:
                self._closing.wait(PAUSE_SECONDS)
            with self._lock:
                if not self._closing.is_set():
                    self._process = self._start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Wait until a child of it has become ready.

        Raises:
          TimeoutError: None has.
        """
        wait_for(
            lambda: self.log.look().child_pid is not None,
            READY_SECONDS,
            f"{self.name} is ready",
            LOOK_SECONDS,
        )

    def family(self) -> list[int]:
        """The command's process, and all that descend from it."""
        return sorted(families({self.pid: ""}), key=lambda pid: pid != self.pid)

    def working(self) -> int | None:
        """The process that does the work: the child that became ready last, where it still runs."""
        pid = self.log.look().child_pid
        return pid if pid is not None and _runs(pid) else None

    def sidecars(self) -> list[int]:
        """The processes of Node that belong to it."""
        return [pid for pid in self.family() if _name_of(pid).startswith("node")]

    def kill_all(self) -> int:
        """Kill the command and all that descend from it, none of which can tell anybody; return how many."""
        family = self.family()
        # Stopped first: the supervisor would say how the others ended.
        send(signal.SIGSTOP, family[:1])
        family = self.family()
        return send(signal.SIGKILL, family[1:] + family[:1])

    def close(self) -> None:
        """End it for good, at once."""
        self._closing.set()
        with self._lock:
            self.kill_all()
        self._thread.join()


def _lines_of(text: bytes) -> list[dict[str, Any]]:
    found = []
    for line in text.split(b"\n"):
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return [line for line in found if isinstance(line, dict)]


def send(number: signal.Signals, pids: Sequence[int]) -> int:
    """Send a signal; return how many processes there were to get it."""
    sent = 0
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            sent += 1
    return sent


def _runs(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def _name_of(pid: int) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return str(psutil.Process(pid).name())
    return ""
