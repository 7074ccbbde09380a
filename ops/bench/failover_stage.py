"""A Tether whose workers are killed amid streams, and clients that read these through the gateway."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from core_processes import families
from core_stage import READY_SECONDS, wait_for
from edges_stage import EdgesStage

from tether.discovery.trust.process_life import lives_in

PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Scene:
    """What runs when a worker is killed.

    Attributes:
      model: The ``[[models]]`` table, and what stands below it.
      workers: How many there are, each as on a host of its own.
      slots: Of each.
      requests: The jobs that run, as ``POST /v1/jobs`` takes them.
    """

    model: str
    workers: int
    slots: int
    requests: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Event:
    """An event of a stream, and when it had arrived, in monotonic nanoseconds."""

    kind: str
    data: Mapping[str, Any]
    at_ns: int


@dataclass
class Reader:
    """A client that reads one job's stream to its end.

    It owns the thread ``failover-reader``, and a socket.
    """

    port: int
    key: str
    job_id: str
    events: list[Event] = field(default_factory=list)

    def start(self) -> Self:
        self._news = threading.Condition()
        self._is_over = False
        self._thread = threading.Thread(target=self._read, name="failover-reader", daemon=True)
        self._thread.start()
        return self

    def _read(self) -> None:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS) as connection:
                connection.sendall(
                    f"GET /v1/jobs/{self.job_id}/stream HTTP/1.1\r\nHost: bench\r\n"
                    f"Authorization: Bearer {self.key}\r\n\r\n".encode()
                )
                answer = http.client.HTTPResponse(connection, method="GET")
                answer.begin()
                for event in events_of(iter(answer.readline, b"")):
                    with self._news:
                        self.events.append(event)
                        self._news.notify_all()
        finally:
            with self._news:
                self._is_over = True
                self._news.notify_all()

    def wait_for_tokens(self, count: int) -> None:
        """Wait until it has read so many tokens.

        Raises:
          RuntimeError: The stream ended before, or nothing came.
        """
        with self._news:
            self._news.wait_for(lambda: self._is_over or len(self.tokens()) >= count, PATIENCE_SECONDS)
            if len(self.tokens()) < count:
                raise RuntimeError(f"{count} tokens of {self.job_id} did not come: {self.events}")

    def join(self) -> None:
        """Wait for the stream's end."""
        self._thread.join(PATIENCE_SECONDS)

    def tokens(self) -> list[str]:
        """The texts of the tokens so far.

        Raises:
          RuntimeError: One is missing, or there twice.
        """
        found: list[str] = []
        for event in self.events:
            if event.kind == "delta":
                found += event.data["texts"]
                if event.data["offset"] != len(found):
                    raise RuntimeError(f"a token of {self.job_id} is missing, or there twice: {event}")
        return found

    def tokens_after_ns(self, kind: str) -> int | None:
        """When the first token after an event of this kind had arrived; None where there is none."""
        kinds = [event.kind for event in self.events]
        if kind not in kinds:
            return None
        after = self.events[kinds.index(kind) :]
        return next((event.at_ns for event in after if event.kind == "delta"), None)


def events_of(lines: Iterable[bytes]) -> Iterator[Event]:
    """The server-sent events in these lines, as they arrive."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name:
            fields[name] = value
        elif "event" in fields:
            yield Event(fields["event"], json.loads(fields["data"]), time.monotonic_ns())
            fields = {}


class FailoverStage(EdgesStage):
    """A Tether with a gateway, and workers each of which has a supervisor of its own."""

    def __init__(self, scene: Scene) -> None:
        super().__init__()
        self._scene = scene
        self._is_ready_after = dict.fromkeys(self.workers, 0)

    @property
    def workers(self) -> Sequence[str]:
        """The names of its workers."""
        return [f"worker{number}" for number in range(1, self._scene.workers + 1)]

    def __enter__(self) -> Self:
        super().__enter__()
        file = self.folder / "tether.toml"
        text = file.read_text("utf-8").partition("[[models]]")[0]
        file.write_text(text + self._scene.model, encoding="utf-8")
        try:
            self.start_orchestrator()
            self._port = int(self.start_gateway().rpartition(":")[2])
            self._key = self.make_key()
            for name in self.workers:
                self.start_host(name)
            for name in self.workers:
                self.wait_until_it_draws(name)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def start_host(self, name: str) -> None:
        """Start `tether worker`, with one process."""
        self._launch(name, ["-m", "tether_cli", "worker", "-p", "1", "-t", str(self._scene.slots)])

    def wait_until_it_draws(self, name: str) -> None:
        """Wait until a worker's process that was not there when it was killed last has loaded its model, and
        waits for jobs."""
        wait_for(lambda: self._draws(name), READY_SECONDS, f"{name} waits for jobs")

    def _draws(self, name: str) -> bool:
        boots = self._boots(name)
        if len(boots) <= self._is_ready_after[name]:
            return False
        return any(
            self.redis.sismember(pool, boots[-1])
            for pool in self.redis.scan_iter("*:pool:*:idle", count=1000)
        )

    def _boots(self, name: str) -> list[str]:
        return re.findall(r"Serving\..*worker=(\S+)", self.log_of(name))

    def submit(self) -> list[Reader]:
        """Submit the scene's jobs, and read their streams."""
        readers = []
        for request in self._scene.requests:
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port)) as connection:
                headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
                connection.request("POST", "/v1/jobs", json.dumps(request), headers)
                answer = connection.getresponse()
                body = json.loads(answer.read())
                if answer.status not in {200, 202}:
                    raise RuntimeError(f"a job was not accepted: {body}")
            readers.append(Reader(self._port, self._key, body["job_id"]).start())
        return readers

    def worker_of(self, reader: Reader) -> str:
        """The name of the worker that runs a job."""
        boot_id = (self.redis.hget(self.keys.job(reader.job_id), "worker") or b"").decode()
        for name in self.workers:
            if boot_id in self._boots(name):
                return name
        raise RuntimeError(f"nobody runs {reader.job_id}")

    def kill_process(self, name: str) -> int:
        """Kill what works for a worker, and leave its supervisor. When that was, in monotonic nanoseconds."""
        boots = self._boots(name)
        self._is_ready_after[name] = len(boots)
        pid = self._pid_of(name)
        at_ns = time.monotonic_ns()
        os.kill(pid, signal.SIGKILL)
        return at_ns

    def _pid_of(self, name: str) -> int:
        boot_id = self._boots(name)[-1]
        return next(life.pid for life in lives_in(self.folder / "identity") if boot_id in life.boot_ids)

    def kill_host(self, name: str) -> int:
        """Kill a worker's supervisor with all that it runs, so that nobody is left to say so. When that was,
        in monotonic nanoseconds."""
        self._is_ready_after[name] = len(self._boots(name))
        supervisor = self._processes[name]
        os.kill(supervisor.pid, signal.SIGSTOP)
        pids = families({supervisor.pid: ""})
        at_ns = time.monotonic_ns()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        supervisor.wait()
        return at_ns
