"""One task queue on a Redis server of its own, with its client and workers."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from queue_ledger import Ledger
from queue_peers import Peer

from tether.local.redis_server import RedisServer

READY_SECONDS = 60.0
"""How long a worker may take from its start to its first job."""

CLIENT_SECONDS = 120.0
PROBES = 64
PROBE_SECONDS = 0.02
_APPS = Path(__file__).with_name("queue_apps")
_LAST_WORDS = 2_000


class Stage:
    """One peer on a fresh Redis server.

    It owns the server, a temporary folder, the ledger and every process that it starts, each in a session
    of its own. Leaving it kills them all; if that is because of an error, their last words are printed.
    """

    def __init__(self, peer: Peer, *, capacity: int = 1) -> None:
        self.peer = peer
        self._capacity = capacity
        self._ended = contextlib.ExitStack()
        self._workers: dict[str, subprocess.Popen[bytes]] = {}
        self._arguments: dict[str, list[str]] = {}
        self._probes = itertools.count()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tether-bench-")))
            stack.push(self._show_logs_of_failure)
            self.server = RedisServer()
            self.server.start()
            stack.callback(self.server.close)
            self.ledger = Ledger(self.folder)
            stack.callback(self.ledger.close)
            self._client = self._launch("client", ["bench_client.py", self.peer.app], subprocess.PIPE)
            stack.callback(self._kill, self._client)
            self._hear()
            self._ended = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._workers.values():
            self._kill(process)
        self._ended.__exit__(kind, error, trace)

    def _show_logs_of_failure(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        for log in sorted(self.folder.glob("*.log")):
            words = log.read_text(encoding="utf-8", errors="replace")[-_LAST_WORDS:]
            print(f"--- {self.peer.name}: last words in {log.name}\n{words}", file=sys.stderr)

    def _launch(self, instance: str, arguments: list[str], pipe: int) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "PYTHONPATH": str(_APPS),
            "BENCH_REDIS_URL": self.server.url,
            "BENCH_FOLDER": str(self.folder),
            "BENCH_INSTANCE": instance,
            "BENCH_CAPACITY": str(self._capacity),
        }
        with open(self.folder / f"{instance}.log", "ab") as log:
            return subprocess.Popen(
                [sys.executable, *arguments],
                cwd=_APPS,
                env=environment,
                stdin=pipe,
                stdout=pipe if pipe == subprocess.PIPE else log,
                stderr=log,
                start_new_session=True,
            )

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        # The leader may have ended before its children did; the group lives as long as any of them.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    # The client.

    def _hear(self) -> dict[str, int]:
        assert self._client.stdout is not None
        line = self._client.stdout.readline()
        if not line:
            raise RuntimeError(f"the client of {self.peer.name} ended")
        return {name: int(value) for name, value in json.loads(line).items()}

    def _ask(self, **request: object) -> dict[str, int]:
        assert self._client.stdin is not None
        self._client.stdin.write(json.dumps(request).encode() + b"\n")
        self._client.stdin.flush()
        return self._hear()

    def enqueue(self, job: str, *arguments: object, delay: float | None = None) -> int:
        """Enqueue one job; when the client began to, by the monotonic clock in nanoseconds."""
        return self._ask(job=job, arguments=arguments, delay=delay)["began"]

    def enqueue_many(self, job: str, count: int) -> float:
        """Enqueue ``count`` jobs without arguments; the seconds that took."""
        answer = self._ask(job=job, count=count)
        return (answer["ended"] - answer["began"]) / 1e9

    # The workers.

    def start_worker(self, instance: str, *, processes: int, threads: int) -> None:
        """Start one worker instance: what one command of this peer starts."""
        filled = {"processes": processes, "threads": threads, "instance": instance}
        self._start(instance, [part.format(**filled) for part in self.peer.worker])

    def start_helpers(self) -> None:
        """Start what this peer needs beside its workers."""
        for number, arguments in enumerate(self.peer.helpers):
            self._start(f"helper{number}", list(arguments))

    def _start(self, instance: str, arguments: list[str]) -> None:
        self._arguments[instance] = arguments
        self._workers[instance] = self._launch(instance, arguments, subprocess.DEVNULL)

    def kill_worker(self, instance: str) -> None:
        """Send SIGKILL to all processes of one instance."""
        self._kill(self._workers.pop(instance))

    def revive(self) -> int:
        """Start again whatever ended by itself, as a supervisor would; how many that were."""
        ended = [instance for instance, process in self._workers.items() if process.poll() is not None]
        for instance in ended:
            self._kill(self._workers[instance])
            self._start(instance, self._arguments[instance])
        return len(ended)

    def wait_until_ready(self, processes: int) -> None:
        """Wait until jobs ran in that many processes of the instances that now run.

        Raises:
          TimeoutError: They did not.
        """
        tries = max(1, round(READY_SECONDS))
        for _ in range(tries):
            prefix = f"probe-{next(self._probes)}-"
            for number in range(PROBES):
                self.enqueue("short", f"{prefix}{number}", PROBE_SECONDS)

            def all_ran(prefix: str = prefix) -> bool:
                return len(self.ledger.records("finished", prefix=prefix)) >= PROBES

            if not self.ledger.wait_for(all_ran, READY_SECONDS):
                break
            if len({record.pid for record in self.ledger.records("finished", prefix=prefix)}) >= processes:
                return
        raise TimeoutError(f"{self.peer.name}: jobs did not run in {processes} worker processes")
