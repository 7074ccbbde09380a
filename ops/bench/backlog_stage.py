"""A Tether with a backlog: jobs that are put into its database by SQL, as many as are wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self, Unpack

from core_stage import Stage, wait_for
from sqlalchemy import Connection, event, text, update

from tether import Tether
from tether.clocks import wall_clock_ms
from tether.config.loading import load_settings
from tether.config.settings import Settings
from tether.core.control_plane import ControlPlane
from tether.ids import JobId
from tether.orchestrator.waiting import PlaceWaiting
from tether.requests.fields import SubmitOptions
from tether.store import queries
from tether.store.schema import dispatches, holds, jobs

LIVE, DEAD = "counter", "dead"
PROMPT = "word " * 100

_MODELS = """
[[models]]
name = "dead"
engine = "null"
gpu_class = "h100"
"""
"""A model for a class of GPU that this machine has not."""


class BacklogStage(Stage):
    """The stage of the core benchmark, with a model that nobody serves."""

    def __enter__(self) -> Self:
        super().__enter__()
        with (self.folder / "tether.toml").open("a", encoding="utf-8") as file:
            file.write(_MODELS)
        return self

    def settings(self) -> Settings:
        return load_settings(environ={}, file=self.folder / "tether.toml")

    def seed(self, count: int, model: str) -> str:
        """Park so many jobs for a model, all due now, with the holds that they have. Return the id of one."""
        with Tether.direct(self.settings()) as tether:
            template = tether.submit(DEAD, PROMPT).job_id
        self._store.write_alone(_copy, template, count, {"model": model, "due_at": wall_clock_ms()}).result()
        return f"{template[:24]}{1:012}"

    def queue(
        self, client: Tether, count: int, model: str, prompt_bytes: int, **options: Unpack[SubmitOptions]
    ) -> JobId:
        """Let the outbox owe the hand-overs of so many jobs, all due now. Return the id of one."""
        prompt = f"count {'word ' * (prompt_bytes // 5)}"
        # It is not due as long as this runs.
        template = client.submit(model, prompt, max_tokens=1, delay=86_400, **options).job_id
        due = {"not_before": 0, "due_at": wall_clock_ms()}
        if count > 1:
            self._store.write_alone(_copy, template, count - 1, due).result()
        self._store.write_alone(_let_be_due, template, due).result()
        return template

    def wait_for_end(self, job_id: str, seconds: float) -> None:
        """Wait until a job has ended.

        Raises:
          TimeoutError: It did not.
        """

        def has_ended() -> bool:
            row = self._store.read(queries.job, job_id)
            return row is not None and row.state.is_final

        wait_for(has_ended, seconds, "a job that waits behind the backlog has ended")

    def statements_of_a_step(self) -> int:
        """How many statements a step of the loop takes that places waiting jobs, where nothing is due."""
        with ControlPlane(self.settings()) as plane:
            step = PlaceWaiting(
                plane.store, plane.waiting_placement, plane.reservations, now_ms=wall_clock_ms
            )
            step()
            asked: list[str] = []
            for engine in (plane.store._readers, plane.store._writers):
                event.listen(engine, "before_cursor_execute", lambda *call: asked.append(call[2]))
            step()
            return len(asked)


def _let_be_due(connection: Connection, job_id: JobId, due: dict[str, int]) -> None:
    connection.execute(update(jobs).where(jobs.c.job_id == job_id).values(due))
    connection.execute(update(dispatches).where(dispatches.c.job_id == job_id).values(due_at=due["due_at"]))


def _copy(connection: Connection, template: JobId, count: int, changes: Mapping[str, object]) -> None:
    """Copy a job's row so many times, and what belongs to it."""
    own = "substr(job_id, 1, 24) || substr('000000000000' || n.i, -12)"
    keys = {"job_id": own, "correlation_id": "job_id || n.i", "retry_token": "job_id || n.i"}
    for table in (jobs, dispatches, holds):
        given = {name: value for name, value in changes.items() if name in table.columns}
        changed = {**keys, **{name: f":{name}" for name in given}}
        names = [column.name for column in table.columns]
        connection.execute(
            text(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count) "
                f"INSERT INTO {table.name} ({', '.join(names)}) "
                f"SELECT {', '.join(changed.get(name, name) for name in names)} "
                f"FROM {table.name} CROSS JOIN n WHERE job_id = :template"
            ),
            {"count": count, "template": template, **given},
        )
    connection.execute(
        text(
            "UPDATE counters SET held = held + :count WHERE (kind, name) IN "
            "(SELECT kind, name FROM holds WHERE job_id = :template)"
        ),
        {"count": count, "template": template},
    )
