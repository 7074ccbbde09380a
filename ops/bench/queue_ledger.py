"""What the jobs report, received as it happens and kept outside the Redis server that is measured."""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_NUMBER = struct.Struct("<q")
_END = b"end"
_LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class Record:
    """One report of a job: ``kind`` is started or finished, ``at_ns`` the machine's monotonic clock."""

    kind: str
    job_id: str
    instance: str
    pid: int
    at_ns: int


class Ledger:
    """Receives the jobs' reports in ``folder``.

    It owns the socket ``ledger``, the pipe ``gate`` for which jobs can wait, and one thread,
    ``bench-ledger``; all end with :meth:`close`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._counts = folder / "counts"
        self._counts.mkdir()
        os.mkfifo(folder / "gate")
        self._changed = threading.Condition()
        self._records: list[Record] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "ledger"))
        self._thread = threading.Thread(target=self._receive, name="bench-ledger", daemon=True)
        self._thread.start()

    def _receive(self) -> None:
        while (datagram := self._socket.recv(4096)) != _END:
            kind, job_id, instance, pid, at_ns = datagram.decode().split()
            with self._changed:
                self._records.append(Record(kind, job_id, instance, int(pid), int(at_ns)))
                self._changed.notify_all()

    def records(self, kind: str, job_id: str | None = None, prefix: str = "") -> list[Record]:
        """Reports of one kind, in the order of arrival, of one job or of all whose id begins so."""
        with self._changed:
            return [
                record
                for record in self._records
                if record.kind == kind
                and (record.job_id == job_id if job_id is not None else record.job_id.startswith(prefix))
            ]

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until the reports fulfil ``condition``; whether they did within ``seconds``."""
        with self._changed:
            return self._changed.wait_for(condition, seconds)

    @contextlib.contextmanager
    def gate_open(self) -> Iterator[None]:
        """Let jobs through that come to the gate while this lasts."""
        # Opened for both reading and writing, it waits for nobody, and nobody who opens it waits.
        opened = os.open(self._folder / "gate", os.O_RDWR)
        try:
            yield
        finally:
            os.close(opened)

    def wait_for_count(self, wanted: int, seconds: float) -> list[list[int]]:
        """Wait until ``wanted`` counted jobs ran; the times of each process's executions.

        Looks at the shared memory from time to time, so that no job has to tell anybody.

        Raises:
          TimeoutError: They did not within ``seconds``.
        """
        deadline = time.monotonic() + seconds
        while True:
            done = sum(self._count_of(file) for file in self._counts.iterdir())
            if done >= wanted:
                return [self._times_in(file) for file in self._counts.iterdir()]
            if time.monotonic() > deadline:
                raise TimeoutError(f"{done} of {wanted} jobs ran within {seconds:.0f} s")
            time.sleep(_LOOK_SECONDS)

    def _count_of(self, file: Path) -> int:
        with file.open("rb") as opened:
            head = opened.read(_NUMBER.size)
        return int(_NUMBER.unpack(head)[0]) if len(head) == _NUMBER.size else 0

    def _times_in(self, file: Path) -> list[int]:
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as memory:
            count = _NUMBER.unpack_from(memory, 0)[0]
            return [int(n) for (n,) in _NUMBER.iter_unpack(memory[_NUMBER.size : _NUMBER.size * (count + 1)])]

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
            own.sendto(_END, str(self._folder / "ledger"))
        self._thread.join()
        self._socket.close()
