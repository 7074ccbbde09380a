"""A Tether that is up as its user has it, jobs at a steady rate, and samples of the memory of its parts."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from core_processes import families
from core_stage import wait_for
from last_words import print_last_words
from soak_growth import GATEWAY, WORKERS, Sample

READY_SECONDS = 120.0
STOP_SECONDS = 60.0
_APPS = Path(__file__).parent / "soak_apps"

MODELS = [
    {"name": "short", "engine": "null", "options": {"output_tokens": 20, "tokens_per_second": 100}},
    {"name": "slow", "engine": "null", "options": {"output_tokens": 400, "tokens_per_second": 20}},
]


class SoakStage:
    """`tether up` with workers of its own kind, and clients.

    It owns a temporary folder and the processes. Leaving it ends them all; if that is because of an error,
    their last words are printed.
    """

    def __init__(self, *, workers: int, threads: int, result_ttl_ms: int) -> None:
        self._workers = workers
        self._settings = {
            "TETHER_MODELS": json.dumps(MODELS),
            "TETHER_WORKER__THREADS": str(threads),
            "TETHER_JOBS__RESULT_TTL": str(result_ttl_ms),
            # Of the swarm's processes no memory follows the jobs: they never hear of one.
            "TETHER_PRESENCE__ADAPTERS": "redis",
        }
        self._ended = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="tether-soak-"))
            self.folder = Path(place) / "state"
            self._environ = {
                **{name: value for name, value in os.environ.items() if not name.startswith("TETHER_")},
                **self._settings,
                "HOME": place,
                "TETHER_DIR": str(self.folder),
                "PYTHONPATH": os.pathsep.join(filter(None, (str(_APPS), os.environ.get("PYTHONPATH", "")))),
                "PYTHONUNBUFFERED": "1",
            }
            self._log = Path(place) / "up.log"
            stack.push(self._show_logs_of_failure)
            up = self._launch("soak_up.py", str(self.folder), str(self._workers))
            stack.callback(_stop, up)
            wait_for(lambda: self._is_ready(up), READY_SECONDS, "`tether up` is ready")
            self._redis = redis.Redis(unix_socket_path=str(self.folder / "run" / "redis.sock"))
            stack.callback(self._redis.close)
            self._pids = self._parts()
            self._ended = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.__exit__(kind, error, trace)

    def _show_logs_of_failure(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        print_last_words((self._log, *sorted(self.folder.glob("logs/*.log"))))

    def _launch(self, app: str, *arguments: str, talks: bool = False) -> subprocess.Popen[str]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, str(_APPS / app), *arguments],
                env=self._environ,
                cwd=self._log.parent,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else log,
                stderr=None if talks else log,
                start_new_session=True,
                text=True,
            )

    def _is_ready(self, up: subprocess.Popen[str]) -> bool:
        if up.poll() is not None:
            raise RuntimeError(f"`tether up` has ended with status {up.returncode}")
        return "Tether is ready" in self._log.read_text("utf-8", "replace")

    def _parts(self) -> dict[str, int]:
        document = json.loads((self.folder / "parts.json").read_text("utf-8"))
        return {part["name"]: part["pid"] for part in document["parts"]}

    def restarted(self) -> int:
        """How many parts are not the processes any more that they were."""
        now = self._parts()
        return sum(now.get(name) != pid for name, pid in self._pids.items())

    def soak(self, rate: float, seconds: float, period_seconds: int) -> Iterator[Sample]:
        """Submit ``rate`` jobs a second; sample each ``period_seconds``, and once when all have ended."""
        endpoint = json.loads((self.folder / "endpoint.json").read_text("utf-8"))
        port = endpoint["url"].rpartition(":")[2]
        load = self._launch("soak_load.py", port, endpoint["api_key"], str(rate), str(seconds), talks=True)
        assert load.stdout is not None
        began = time.monotonic()
        counts: dict[str, int] = {}
        try:
            for number, line in enumerate(load.stdout, 1):
                counts = json.loads(line)
                if number % period_seconds == 0 and number <= seconds:
                    yield self.sample(time.monotonic() - began, counts)
            if load.wait() != 0 or not counts:
                raise RuntimeError("the clients have failed")
            yield self.sample(time.monotonic() - began, counts)
        finally:
            load.kill()
            load.wait()
            load.stdout.close()

    def sample(self, at_seconds: float, counts: dict[str, int]) -> Sample:
        """What everything holds now."""
        owners = families({pid: name for name, pid in self._pids.items()})
        memory = {GATEWAY: 0, WORKERS: 0}
        for pid, name in owners.items():
            kind = GATEWAY if name == "gateway" else WORKERS if name.startswith("worker") else None
            if kind is not None:
                memory[kind] += _own_memory(pid)
        server: Any = self._redis.info("memory")
        files = [self.folder / "tether.db", self.folder / "tether.db-wal"]
        return Sample(
            at_seconds=at_seconds,
            ended=counts["ended"],
            under_way=counts["under_way"],
            surprises=counts["surprises"],
            memory=memory,
            redis=int(server["used_memory"]),
            keys=int(self._redis.dbsize()),
            database=sum(file.stat().st_size for file in files if file.exists()),
        )


def _own_memory(pid: int) -> int:
    """Bytes of anonymous memory: not that of files, which the kernel takes back when it needs it."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except FileNotFoundError:
        return 0
    fields = dict(line.split(":", 1) for line in text.splitlines())
    return sum(int(fields[name].split()[0]) * 1024 for name in ("RssAnon", "VmSwap") if name in fields)


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def sampled(samples: Sequence[Sample]) -> str:
    """A line about the newest sample."""
    newest = samples[-1]
    held = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in newest.memory.items())
    return (
        f"{newest.at_seconds:5.0f} s: {newest.ended} jobs ended, {newest.under_way} under way; MB: {held}, "
        f"Redis {newest.redis / 1e6:.1f} ({newest.keys} keys), database {newest.database / 1e6:.1f}"
    )
