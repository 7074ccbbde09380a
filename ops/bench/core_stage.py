"""A whole Tether on servers of its own: Redis, a database, orchestrator, workers, and a client process."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import redis
from core_databases import POSTGRES, SQLITE, PostgresServer
from core_processes import families, processor_seconds
from last_words import print_last_words
from queue_ledger import Ledger
from sqlalchemy import Connection, func, select, update

from tether.broker.keys import Keys
from tether.config.loading import load_settings
from tether.jobs import JobState
from tether.local.redis_server import RedisServer
from tether.store.schema import jobs, tenants
from tether.store.store import Store
from tether_workers.served_models import served_models

READY_SECONDS = 60.0
PROBES = 64
LOOK_SECONDS = 0.02
_FOLDER = Path(__file__).parent
_APPS = (_FOLDER / "core_apps", _FOLDER / "queue_apps")

_CONFIG = """
[redis]
url = "{redis}"
[database]
url = "{database}"
[presence]
identity_dir = "{folder}/identity"
[[models]]
name = "counter"
engine = "null"
[models.options]
tokens_per_second = 0
output_tokens = 1
"""


class Stage:
    """Tether on fresh servers, started part by part; models make one token, at once.

    It owns the servers (but not Postgres), a temporary folder, the ledger and every process that it starts,
    each in a session of its own. Leaving it kills them all; if that is because of an error, their last words
    are printed.
    """

    def __init__(self, *, postgres: PostgresServer | None = None, profile: bool = False) -> None:
        """
        Args:
          postgres: Where the database is made; a file of SQLite where None.
          profile: Whether the processes are profiled.
        """
        self._postgres = postgres
        self._profile = profile
        self._ended = contextlib.ExitStack()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._probes = itertools.count()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tether-bench-")))
            stack.push(self._show_logs_of_failure)
            self.server = RedisServer().start()
            stack.callback(self.server.close)
            self.redis = redis.Redis.from_url(self.server.url)
            stack.callback(self.redis.close)
            self.ledger = Ledger(self.folder)
            stack.callback(self.ledger.close)
            database = (
                self._postgres.new_database() if self._postgres else f"sqlite:///{self.folder}/tether.db"
            )
            config = self.folder / "tether.toml"
            config.write_text(
                _CONFIG.format(redis=self.server.url, database=database, folder=self.folder), encoding="utf-8"
            )
            settings = load_settings(environ={}, file=config)
            self.keys = Keys(settings.redis.namespace, settings.redis.hash_tag)
            self.pool = served_models(settings, ["null"])[0].pool
            self._store = Store(database)
            stack.callback(self._store.close)
            stack.callback(self._kill_all)
            (self.folder / "profile").mkdir()
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
        print_last_words(sorted(self.folder.glob("*.log")))

    def _launch(
        self,
        name: str,
        arguments: list[str],
        *,
        talks: bool = False,
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> subprocess.Popen[bytes]:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TETHER_")},
            "PYTHONPATH": os.pathsep.join(map(str, _APPS)),
            "TETHER_CONFIG": str(self.folder / "tether.toml"),
            "BENCH_REDIS_URL": self.server.url,
            "BENCH_FOLDER": str(self.folder),
            "BENCH_INSTANCE": name,
            **more,
        }
        if self._profile:
            environment["BENCH_PROFILE"] = str(self.folder / "profile")
        with open(self.folder / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else log,
                stderr=log,
                start_new_session=True,
            )
        self._processes[name] = process
        return process

    def _kill_all(self) -> None:
        for process in self._processes.values():
            # A supervisor's children have sessions of their own, and would end in order, which takes long.
            for pid in families({process.pid: ""}):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    # The parts.

    def open_epoch(self) -> None:
        """Do what an orchestrator does first, where none runs."""
        self.redis.set(self.keys.epoch, 1)

    def start_client(self) -> None:
        """Start the process that places and submits."""
        self.hear(self.launch_talker("submitter", "core_client.py"))

    def start_orchestrator(self) -> None:
        """Start an orchestrator, and wait until it has opened the epoch."""
        self._store.open()
        self._launch("orchestrator", [str(_APPS[0] / "core_orchestrator.py")])
        wait_for(
            lambda: bool(self.redis.exists(self.keys.epoch)), READY_SECONDS, "the orchestrator opens an epoch"
        )

    def start_worker(self, *, processes: int, threads: int) -> None:
        """Start `tether worker`."""
        arguments = ["worker", "core_worker:broker", "-p", str(processes), "-t", str(threads)]
        self._launch("workers", ["-m", "tether_cli", *arguments])

    def start_ports(self, *, processes: int, ports: int) -> None:
        """Start so many processes with so many bare worker ports each."""
        for number in range(processes):
            self._launch(f"ports{number}", [str(_APPS[0] / "core_ports.py"), self.pool, str(ports)])

    def launch_talker(self, name: str, app: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a process of this bench that talks in lines of JSON."""
        return self._launch(name, [str(_APPS[0] / app), *arguments], talks=True)

    def log_of(self, name: str) -> str:
        """What a process has logged, without colours."""
        text = (self.folder / f"{name}.log").read_text("utf-8", errors="replace")
        return re.sub(r"\x1b\[[\d;]*m", "", text)

    def wait_until_child_is_ready(self, name: str) -> None:
        """Wait until the supervisor of this name says that a child of its is ready."""
        wait_for(lambda: "A child is ready" in self.log_of(name), READY_SECONDS, f"{name} is ready")

    def hear(self, process: subprocess.Popen[bytes]) -> dict[str, int]:
        """The next thing that a process says.

        Raises:
          RuntimeError: It ended.
        """
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("a process of the bench ended")
        return {name: int(value) for name, value in json.loads(line).items()}

    def ask(self, do: str, **request: object) -> dict[str, int]:
        """Let the client process do something; see :class:`Client` in ``core_apps/core_client.py``."""
        client = self._processes["submitter"]
        assert client.stdin is not None
        client.stdin.write(json.dumps({"do": do, **request}).encode() + b"\n")
        client.stdin.flush()
        return self.hear(client)

    def wait_until_ready(self, processes: int, start: Callable[[list[str]], object]) -> None:
        """Wait until jobs ran in so many worker processes; ``start`` starts jobs of kind ``short`` by names.

        Raises:
          TimeoutError: They did not.
        """
        for _ in range(round(READY_SECONDS)):
            prefix = f"probe-{next(self._probes)}-"
            start([f"{prefix}{number}" for number in range(PROBES)])

            def all_ran(prefix: str = prefix) -> bool:
                return len(self.ledger.records("finished", prefix=prefix)) >= PROBES

            if not self.ledger.wait_for(all_ran, READY_SECONDS):
                break
            if len({record.pid for record in self.ledger.records("finished", prefix=prefix)}) >= processes:
                return
        raise TimeoutError(f"jobs did not run in {processes} worker processes")

    # What became of it.

    def settled(self) -> int:
        """How many jobs have ended in the database.

        Raises:
          RuntimeError: One of them did not succeed.
        """
        by_state = self._store.read(_ended_by_state)
        others = {state: count for state, count in by_state.items() if state != JobState.SUCCEEDED}
        if others:
            raise RuntimeError(f"jobs have ended badly: {others}")
        return by_state.get(JobState.SUCCEEDED.value, 0)

    def wait_for_settled(self, wanted: int, seconds: float) -> int:
        """Wait until so many jobs have ended in the database; when that was seen, in nanoseconds."""
        wait_for(lambda: self.settled() >= wanted, seconds, f"{wanted} jobs are settled")
        return time.monotonic_ns()

    def processor_seconds(self) -> dict[str, float]:
        """Processor time that each part has used until now."""
        roots = {process.pid: name for name, process in self._processes.items()}
        roots[self.server.pid] = "Redis"
        if self._postgres:
            roots[self._postgres.pid] = "Postgres"
        return processor_seconds(roots)

    @property
    def database(self) -> str:
        """Its kind, as figures name it."""
        return POSTGRES if self._postgres else SQLITE

    def commit_milliseconds(self, samples: int, pause: Callable[[], None]) -> list[float]:
        """How long one smallest write takes through the store, from this process: its way to the thread that
        writes, a transaction, the commit."""
        found = []
        for _ in range(samples):
            pause()
            began = time.monotonic_ns()
            self._store.write_alone(_write_little).result()
            found.append((time.monotonic_ns() - began) / 1e6)
        return found


def _write_little(connection: Connection) -> None:
    connection.execute(update(tenants).values(name=func.lower(tenants.c.name)))


def _ended_by_state(connection: Connection) -> dict[str, int]:
    query = (
        select(jobs.c.state, func.count().label("count"))
        .where(jobs.c.finished_at.is_not(None))
        .group_by(jobs.c.state)
    )
    return dict(connection.execute(query).tuples().all())


def wait_for(
    condition: Callable[[], object], seconds: float, what: str, look_seconds: float = LOOK_SECONDS
) -> None:
    """Wait until something is true.

    Raises:
      TimeoutError: It is not within so many seconds; ``what`` says what.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        time.sleep(look_seconds)
