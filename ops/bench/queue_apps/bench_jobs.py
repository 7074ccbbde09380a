"""The jobs that every peer runs, and how they tell the bench what happened.

A job that reports sends one datagram to the bench's Unix socket: it goes to the kernel in one call, survives
the death of its process in the next instant, and does not pass through the Redis server that is measured.
All times are `time.monotonic_ns`, which on Linux is one clock for all processes.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import threading
import time
from pathlib import Path

REDIS_URL = os.environ["BENCH_REDIS_URL"]
FOLDER = Path(os.environ["BENCH_FOLDER"])
INSTANCE = os.environ.get("BENCH_INSTANCE", "client")
CAPACITY = int(os.environ.get("BENCH_CAPACITY", "1"))

JOBS = ("stamp", "count", "short", "hold")
"""Names of the jobs below, by which every peer registers them."""

_NUMBER = struct.Struct("<q")
_SOCKET = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
_LEDGER = str(FOLDER / "ledger")


def _report(kind: str, job_id: str, at_ns: int) -> None:
    _SOCKET.sendto(f"{kind} {job_id} {INSTANCE} {os.getpid()} {at_ns}".encode(), _LEDGER)


def stamp(job_id: str) -> None:
    """Say when this line was reached."""
    now = time.monotonic_ns()
    _report("finished", job_id, now)


class _Counter:
    """The times of this process's executions, in memory shared with the bench: no call to the system."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0
        self._count = 0

    def _open(self) -> None:
        self._pid = os.getpid()
        self._count = 0
        size = _NUMBER.size * (CAPACITY + 1)
        with open(FOLDER / "counts" / f"{INSTANCE}-{self._pid}", "w+b") as file:
            file.truncate(size)
            self._memory = mmap.mmap(file.fileno(), size)

    def add(self) -> None:
        now = time.monotonic_ns()
        with self._lock:
            if os.getpid() != self._pid:
                self._open()
            if self._count < CAPACITY:
                self._count += 1
                _NUMBER.pack_into(self._memory, _NUMBER.size * self._count, now)
            _NUMBER.pack_into(self._memory, 0, self._count)


_COUNTER = _Counter()


def count() -> None:
    """Do nothing but be counted."""
    _COUNTER.add()


def short(job_id: str, seconds: float) -> None:
    """Take some time."""
    _report("started", job_id, time.monotonic_ns())
    time.sleep(seconds)
    _report("finished", job_id, time.monotonic_ns())


def hold(job_id: str) -> None:
    """Run until the bench opens the gate."""
    _report("started", job_id, time.monotonic_ns())
    os.close(os.open(FOLDER / "gate", os.O_RDONLY))
    _report("finished", job_id, time.monotonic_ns())
