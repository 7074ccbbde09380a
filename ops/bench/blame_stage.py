"""A Tether whose workers die or fail, and what becomes of its jobs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import psutil
from core_stage import Stage
from sqlalchemy import Connection, func, select

from tether import Tether
from tether.config.loading import load_settings
from tether.ids import JobId
from tether.jobs import FINAL_STATES, JobRequest, JobState
from tether.store.schema import attempts, jobs

_APPS = Path(__file__).parent / "blame_apps"
_KEPT_MS = 3_600_000


class BlameStage(Stage):
    """The stage of the core benchmark with models that take their time; Redis keeps what has ended."""

    def __init__(self, *, tokens: int, tokens_per_second: float) -> None:
        super().__init__()
        self._options = f"tokens_per_second = {tokens_per_second:g}\noutput_tokens = {tokens}\n"

    def __enter__(self) -> Self:
        super().__enter__()
        file = self.folder / "tether.toml"
        text = file.read_text("utf-8").partition("tokens_per_second")[0]
        file.write_text(f"{text}{self._options}[jobs]\nresult_ttl = {_KEPT_MS}\n", encoding="utf-8")
        return self

    def start_blamed(self, name: str, broker: str = "", *, threads: int) -> None:
        """Start `tether worker` under a name of its own, and wait until its process is ready.

        Args:
          name: Of its log.
          broker: A module of ``blame_apps``; a good worker where empty.
          threads: Its slots.
        """
        program = [f"{broker}:broker"] if broker else []
        arguments = ["worker", *program, "-P", str(_APPS), "-p", "1", "-t", str(threads)]
        self._launch(name, ["-m", "tether_cli", *arguments])
        self.wait_until_child_is_ready(name)

    def submit(self, prompts: Sequence[str]) -> list[JobId]:
        """Submit a job for each prompt, in their order."""
        with Tether.direct(load_settings(environ={}, file=self.folder / "tether.toml")) as tether:
            handles = tether.submit_many([JobRequest(model="counter", prompt=prompt) for prompt in prompts])
        return [handle.job_id for handle in handles]

    def kill_processes_of(self, name: str) -> None:
        """Kill what works for that worker, and leave its supervisor."""
        for child in psutil.Process(self._processes[name].pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                # What it forks them from is not at work.
                if not any("fork_server_program" in word for word in child.cmdline()):
                    child.kill()

    def serving(self, job_ids: Sequence[JobId]) -> set[str]:
        """The processes that run one of these jobs, by their boot ids, as Redis has it."""
        with self.redis.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.hmget(self.keys.job(job_id), "state", "worker")
            return {worker.decode() for state, worker in pipeline.execute() if state == b"running" and worker}

    def deaths_of(self, job_ids: Sequence[JobId]) -> list[int]:
        """How many processes each of these jobs was taken along by."""
        with self.redis.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.hget(self.keys.job(job_id), "deaths")
            return [int(deaths or 0) for deaths in pipeline.execute()]

    def states_of(self, job_ids: Sequence[JobId]) -> list[JobState]:
        """The states of these jobs in the database."""
        by_id = self._store.read(_states)
        return [by_id[job_id] for job_id in job_ids]

    def unfinished(self, job_ids: Sequence[JobId]) -> int:
        """How many of these jobs have not ended in the database."""
        return sum(state not in FINAL_STATES for state in self.states_of(job_ids))

    def failed_attempts(self) -> int:
        return self._store.read(_failed_attempts)

    def pauses_of(self, name: str) -> list[float]:
        """Seconds for which that worker's supervisor waited before each restart."""
        found = re.findall(r"restart_in_seconds\W+([\d.]+)", self.log_of(name))
        return [float(seconds) for seconds in found]


def _states(connection: Connection) -> dict[str, JobState]:
    query = select(jobs.c.job_id, jobs.c.state)
    return {job_id: JobState(state) for job_id, state in connection.execute(query)}


def _failed_attempts(connection: Connection) -> int:
    query = select(func.count()).select_from(attempts).where(attempts.c.kind == "failed")
    return int(connection.execute(query).scalar_one())
