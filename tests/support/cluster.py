"""A whole Tether on loopback: Redis, a database, orchestrators, workers, clients."""

import contextlib
import os
import re
import sys
import tempfile
from pathlib import Path

import redis

from support.api_keys import add_api_key
from support.databases import fresh_sqlite
from support.waiting import PATIENCE_SECONDS
from support.workers import WorkerProcess
from tether import Tether
from tether.broker.keys import Keys
from tether.config.loading import load_settings
from tether.core.control_plane import ControlPlane
from tether.local.redis_server import RedisServer
from tether.orchestrator.orchestrator import Orchestrator

MODEL = """
[[models]]
name = "{name}"
engine = "null"
[models.options]
tokens_per_second = {rate}
output_tokens = {tokens}
"""


class Cluster:
    """Started part by part; :meth:`close` ends all of it."""

    def __init__(self, *, database=None, models=None, config="", presence="", append_only=True):
        """`models`: name -> (tokens per second, tokens); 0 a second is as fast as possible.

        `config`: more sections; `presence`: more lines of that section.
        """
        self._stack = contextlib.ExitStack()
        place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(dir=place)))
        self.server = RedisServer(append_only=append_only).start()
        self._stack.callback(self.server.close)
        database = database or fresh_sqlite(self.folder / "tether.db")
        models = models or {"counter": (0, 8)}
        self.file = self.folder / "tether.toml"
        self.file.write_text(
            f'[redis]\nurl = "{self.server.url}"\n[database]\nurl = "{database}"\n'
            f'[presence]\nidentity_dir = "{self.folder}/identity"\n{presence}\n{config}\n'
            + "".join(
                MODEL.format(name=name, rate=rate, tokens=tokens) for name, (rate, tokens) in models.items()
            )
        )
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TETHER_")},
            "TETHER_CONFIG": str(self.file),
            "PYTHONUNBUFFERED": "1",
        }
        self.settings = load_settings(environ={}, file=self.file)
        self.keys = Keys(self.settings.redis.namespace)
        self.redis = redis.Redis.from_url(self.server.url)
        self._stack.callback(self.redis.close)
        self.processes = []

    def client(self, **options):
        """A client in this process."""
        return self._stack.enter_context(Tether.direct(self.settings, **options))

    def orchestrator(self):
        """An orchestrator in this process."""
        plane = self._stack.enter_context(ControlPlane(self.settings))
        return self._stack.enter_context(Orchestrator(plane))

    def start_orchestrator(self, **environ):
        """`tether orchestrator`, once it is ready."""
        command = [sys.executable, "-m", "tether_cli", "orchestrator"]
        return self._start(command, "A child is ready", environ=environ)

    def start_worker(self, *broker, processes=1, threads=8, wait=True, **environ):
        """`tether worker`, once its processes are ready; `broker`: another program than the default one."""
        command = [sys.executable, "-m", "tether_cli", "worker", *broker]
        command += ["-p", str(processes), "-t", str(threads)]
        return self._start(command, "A child is ready" if wait else None, processes, environ)

    def start_dramatiq(self, program, *, processes, threads):
        """Dramatiq's own command, once its processes are ready."""
        command = [sys.executable, "-m", "dramatiq", program, "-p", str(processes), "-t", str(threads)]
        return self._start(command, "is ready for action", processes)

    def start_gateway(self, **environ):
        """`tether gateway` at a free port, once it answers; its ``url`` and an API ``key`` are on it."""
        key = add_api_key(self.settings)[0]
        command = [sys.executable, "-m", "tether_cli", "gateway", "--port", "0"]
        process = self._start(command, "A child is ready", environ=environ)
        (listening,) = (line for line in process.lines if "Listening." in line)
        process.url = re.search(r"http://[\d.:]+", listening).group()
        process.port = int(process.url.rpartition(":")[2])
        process.key = key
        return process

    def _start(self, command, line, count=1, environ=()):
        process = WorkerProcess(command, self.environ | dict(environ))
        self.processes.append(process)
        if line:
            process.wait_for_line(line, within=PATIENCE_SECONDS, count=count)
        return process

    def close(self):
        for process in self.processes:
            with contextlib.suppress(Exception):
                process.stop()
            process.close()
        self._stack.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
