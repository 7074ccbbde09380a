"""A Tether with two gateways, and a worker that notes when its engines stop and its slots are free."""

from __future__ import annotations

import http.client
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from core_stage import wait_for
from edges_stage import EdgesStage
from sqlalchemy import Connection, func, select

from tether.store.schema import holds

_APPS = Path(__file__).parent / "cancel_apps"
SLOTS = 4
NOTE_SECONDS = 30.0
LOOK_SECONDS = 0.002

_MODELS = """
[[models]]
name = "slow"
engine = "null"
[models.options]
tokens_per_second = 0.1
[[models]]
name = "demo"
source = "demo"
context = 512
"""


class CancelStage(EdgesStage):
    """The stage of the core benchmark with two doors, and models that are at work when they are cancelled."""

    def start(self) -> None:
        """Start everything, and wait until it is ready."""
        file = self.settings_file()
        text = file.read_text("utf-8").replace(
            "tokens_per_second = 0\noutput_tokens = 1", "tokens_per_second = 100"
        )
        file.write_text(text + _MODELS, encoding="utf-8")
        self.start_orchestrator()
        self._key = self.make_key()
        self._doors = [_connection(self.launch_gateway(f"gateway{number}")) for number in range(2)]
        arguments = ["worker", "cancel_worker:broker", "-P", str(_APPS), "-p", "1", "-t", str(SLOTS)]
        self._launch("worker", ["-m", "tether_cli", *arguments])
        self.wait_until_child_is_ready("worker")
        self._notes_read = 0
        self._noted: dict[tuple[str, str], int] = {}

    def close_doors(self) -> None:
        for door in self._doors:
            door.close()

    def submit(self, **request: object) -> str:
        """Submit a job at the first door, and return its id."""
        return str(self._call(0, "POST", "/v1/jobs", request)["job_id"])

    def cancel(self, job_id: str) -> None:
        """Cancel a job at the second door."""
        self._call(1, "DELETE", f"/v1/jobs/{job_id}")

    def _call(self, door: int, method: str, path: str, body: object = None) -> dict[str, Any]:
        connection = self._doors[door]
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status >= http.HTTPStatus.BAD_REQUEST:
            raise RuntimeError(f"{method} {path}: {answer.status}, {text!r}")
        found: dict[str, Any] = json.loads(text)
        return found

    def noted(self, what: str, whom: object) -> int | None:
        """When the worker noted this, in nanoseconds; None where it has not."""
        notes = self.folder / "notes"
        if notes.exists():
            with notes.open("rb") as file:
                file.seek(self._notes_read)
                whole, end, _ = file.read().rpartition(b"\n")
                self._notes_read += len(whole) + len(end)
            for line in whole.decode().splitlines():
                kind, of, at = line.split()
                self._noted[kind, of] = int(at)
        return self._noted.get((what, str(whom)))

    def wait_for_note(self, what: str, whom: object) -> int:
        """When the worker noted this, in nanoseconds, once it has."""
        wait_for(
            lambda: self.noted(what, whom) is not None, NOTE_SECONDS, f"{what} {whom} is noted", LOOK_SECONDS
        )
        return self._noted[what, str(whom)]

    def wait_for_no_holds(self, job_id: str) -> int:
        """When a job was seen to have no holds any more, in nanoseconds."""
        wait_for(
            lambda: not self._store.read(_holds_of, job_id), NOTE_SECONDS, "its holds are gone", LOOK_SECONDS
        )
        return time.monotonic_ns()


def _connection(url: str) -> http.client.HTTPConnection:
    address = urlsplit(url)
    assert address.hostname is not None
    return http.client.HTTPConnection(address.hostname, address.port)


def _holds_of(connection: Connection, job_id: str) -> int:
    query = select(func.count()).select_from(holds).where(holds.c.job_id == job_id)
    return int(connection.execute(query).scalar_one())
