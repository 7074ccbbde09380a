"""A swarm of its own on loopback: a bootstrap node, Redis, who watches the fleet, and workers by number."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from core_processes import families, processor_seconds
from core_stage import Stage

from tether.config.loading import load_settings
from tether.discovery.swarm.packages import find_node, install

APPS = Path(__file__).parent / "presence_apps"
sys.path.append(str(APPS))

import presence_common as common  # noqa: E402  # what the processes have in common

PACKAGES = Path(__file__).resolve().parents[2] / ".venv" / "swarm"
SECRET = "5e" * 32
LOOPBACK = "127.0.0.1"
ANSWER_SECONDS = 120.0


class Bootstrap:
    """A bootstrap node, from its making to :meth:`close`."""

    def __init__(self) -> None:
        node = find_node(os.environ)
        self._process = subprocess.Popen(
            (*node.node, "bootstrap.js", LOOPBACK, "0"),
            cwd=install(PACKAGES, node, os.environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        told = json.loads(self._process.stdout.readline())
        self.address = f"{told['host']}:{told['port']}"

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.kill()
        self._process.wait()

    def settings(self) -> str:
        """What the settings say of the network."""
        return (
            f'[network]\nsecret = "{SECRET}"\nbootstrap = ["{self.address}"]\nhost = "{LOOPBACK}"\n'
            f'package_dir = "{PACKAGES}"\n'
        )


class Talker:
    """A process of the bench that answers requests, and tells of pools that come and go.

    It owns a thread, which ends with the process.

    Attributes:
      changes: By pool, when it came (True) or went, in nanoseconds of the machine's monotonic clock.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.changes: dict[str, list[tuple[int, bool]]] = {}
        self._answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._heard = threading.Condition()
        threading.Thread(target=self._read, name="bench-talker", daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            told = json.loads(line)
            if "reply" in told:
                self._answers.put(told["reply"])
                continue
            with self._heard:
                for kind, is_there in (("came", True), ("went", False)):
                    for pool in told[kind]:
                        self.changes.setdefault(pool, []).append((told["at"], is_there))
                self._heard.notify_all()
        self._answers.put(None)

    def answer(self) -> dict[str, Any]:
        """The next one; the first is that it is there.

        Raises:
          RuntimeError: The process has ended, or does not answer.
        """
        try:
            answer = self._answers.get(timeout=ANSWER_SECONDS)
        except queue.Empty:
            answer = None
        if answer is None:
            raise RuntimeError("a process of the bench has ended, or does not answer")
        return answer

    def tell(self, do: str, **request: object) -> None:
        """Ask without waiting for the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **request}).encode() + b"\n")
        self.process.stdin.flush()

    def ask(self, do: str, **request: object) -> dict[str, Any]:
        self.tell(do, **request)
        return self.answer()

    def when(self, pool: str, is_there: bool, seconds: float) -> int:
        """When a pool came last, or went, which need not have happened yet.

        Raises:
          TimeoutError: It did not within so many seconds.
        """
        with self._heard:
            if not self._heard.wait_for(lambda: self._is(pool, is_there), seconds):
                raise TimeoutError(f"{pool} did not {'come' if is_there else 'go'} within {seconds:.0f} s")
            return self.changes[pool][-1][0]

    def _is(self, pool: str, is_there: bool) -> bool:
        changes = self.changes.get(pool)
        return bool(changes) and changes[-1][1] is is_there


class PresenceStage(Stage):
    """The stage of the core benchmark, with a swarm in which so many workers' keys count.

    Attributes:
      times: When each worker announced itself first and last.
    """

    def __init__(self, workers: int, *, models: int, interval: float = 5.0, expiry: float = 15.0) -> None:
        """
        Args:
          workers: How many have keys that count: those from 0 on.
          models: How many there are; workers take them in turn.
          interval, expiry: Seconds.
        """
        super().__init__()
        self._workers = workers
        self._models = models
        self._interval, self._expiry = interval, expiry

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            self.times = common.Times(self.folder / "times", workers=self._workers)
            self._ended.callback(self.times.close)
            bootstrap = Bootstrap()
            self._ended.callback(bootstrap.close)
            keys = json.dumps([common.public_key_of(number) for number in range(self._workers)])
            presence = (
                f"[presence]\ntrusted_keys = {keys}\n"
                f"interval = {self._interval * 1000:.0f}\nexpiry = {self._expiry * 1000:.0f}\n"
            )
            file = self.folder / "tether.toml"
            text = file.read_text("utf-8").replace("[presence]\n", presence) + bootstrap.settings()
            file.write_text(text, "utf-8")
            load_settings(environ={}, file=file)
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def open_database(self) -> None:
        """Make it, where no orchestrator is started that would."""
        self._store.open()

    def pool_of(self, number: int) -> str:
        """The pool that a worker draws from."""
        return common.pool_of(number, self._models)

    def watcher(self, name: str, *, in_swarm: bool, tells_pools: bool) -> Talker:
        """Start a process that knows the fleet: from the swarm, or from what is mirrored to Redis."""
        arguments = ["swarm" if in_swarm else "redis", "watch" if tells_pools else "count"]
        return self._talker(name, "presence_watcher.py", arguments)

    def member(self, name: str) -> Talker:
        """Start a process for workers."""
        return self._talker(name, "presence_member.py", [str(self._models)])

    def feeder(self, name: str, first: int, count: int, rounds: int) -> Talker:
        """Start a process that has signed so many rounds of announcements of workers, once it answers."""
        return self._talker(name, "presence_feeder.py", map(str, (self._models, first, count, rounds)))

    def _talker(self, name: str, app: str, arguments: Iterable[str]) -> Talker:
        return Talker(self._launch(name, [str(APPS / app), *arguments], talks=True))

    def kill(self, talker: Talker) -> None:
        """kill -9."""
        talker.process.kill()
        talker.process.wait()

    def kill_worker(self) -> None:
        """kill -9 of `tether worker` and all its processes."""
        worker = self._processes["workers"]
        for pid in families({worker.pid: ""}):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        worker.wait()

    def redis_seconds(self) -> float:
        """Processor time that Redis has used until now."""
        return processor_seconds({self.server.pid: "Redis"})["Redis"]
