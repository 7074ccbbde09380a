"""`tether up` as a process, in a state folder of a test's own."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil

from support.swarm import PACKAGES
from support.waiting import PATIENCE_SECONDS, eventually
from support.workers import WorkerProcess
from tether import Tether

MODELS = [
    {"name": "counter", "engine": "null", "options": {"output_tokens": 8}},
    {"name": "slow", "engine": "null", "options": {"output_tokens": 400, "tokens_per_second": 40}},
]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class LocalTether:
    """Runs `tether` verbs on one state folder. :meth:`close` kills what is left."""

    def __init__(self, folder, models=MODELS, **environ):
        self.home = folder
        self.folder = folder / "state"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TETHER_")}
        self.environ = {
            **kept,
            "HOME": str(folder),
            "TETHER_DIR": str(self.folder),
            # Without any, the demo model is served.
            "TETHER_MODELS": json.dumps(models) if models else "",
            "PYTHONUNBUFFERED": "1",
            # Short beats: a killed worker's jobs go on soon.
            "TETHER_PRESENCE__INTERVAL": "500",
            "TETHER_PRESENCE__EXPIRY": "2000",
            # Most tests are not about the swarm: they start sooner without it.
            "TETHER_PRESENCE__ADAPTERS": "redis",
            # Nor about workers that are killed.
            "TETHER_WORKER__FORK_SERVER": "false",
            "TETHER_NETWORK__PACKAGE_DIR": str(PACKAGES),
            **environ,
        }
        self.processes = []

    def command(self, *arguments):
        return [sys.executable, "-m", "tether_cli", *arguments]

    def spawn(self, *arguments, **environ):
        """`tether up` in the foreground, at once."""
        process = WorkerProcess(
            self.command("up", "--port", str(free_port()), *arguments), self.environ | environ
        )
        self.processes.append(process)
        return process

    def up(self, *arguments, until="Tether is ready", **environ):
        """`tether up` in the foreground, once it is ready (or has said something else)."""
        process = self.spawn(*arguments, **environ)
        process.wait_for_line(until, within=PATIENCE_SECONDS)
        return process

    def run(self, *arguments, **environ):
        """A verb to its end: exit status, standard output, standard error."""
        ran = subprocess.run(
            self.command(*arguments),
            env=self.environ | environ,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_SECONDS,
            check=False,
        )
        return ran.returncode, ran.stdout, ran.stderr

    def endpoint(self):
        return json.loads((self.folder / "endpoint.json").read_text())

    @contextlib.contextmanager
    def client(self):
        endpoint = self.endpoint()
        with Tether(endpoint["url"], endpoint["api_key"]) as client:
            yield client

    def parts(self):
        document = json.loads((self.folder / "parts.json").read_text())
        return {part["name"]: part for part in document["parts"]}

    def all_processes(self, process):
        """Everything under a `tether up`."""
        return psutil.Process(process.pid).children(recursive=True)

    def left_files(self):
        """What a clean end must not leave."""
        places = (self.folder / "endpoint.json", self.folder / "lock", self.folder / "run" / "redis.sock")
        return [str(place) for place in places if place.exists()]

    def ready_again(self, name, restarts):
        eventually(
            lambda: self.parts()[name]["state"] == "ready" and self.parts()[name]["restarts"] >= restarts,
            PATIENCE_SECONDS,
            f"{name} is ready again",
        )

    def close(self):
        with contextlib.suppress(Exception):
            # A detached one is no child of ours.
            pid = json.loads((self.folder / "parts.json").read_text())["pid"]
            if str(self.folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                process = psutil.Process(pid)
                process.terminate()
                process.wait(PATIENCE_SECONDS)
        for process in self.processes:
            process.close()
