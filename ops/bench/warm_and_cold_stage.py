"""A Tether with two workers in two regions, of which one has loaded the model and the other has not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from core_stage import READY_SECONDS, Stage, wait_for
from sqlalchemy import Connection, select

from tether.config.loading import load_settings
from tether.config.settings import Settings
from tether.core.control_plane import ControlPlane
from tether.core.direct.backend import DirectBackend
from tether.core.direct.tether import DirectTether
from tether.discovery.fleet.pool_views import PoolView
from tether.jobs import DEFAULT_TENANT, JobRequest, Sampling
from tether.store.schema import attempts

MODEL, OTHER = "counter", "other"
WARM, COLD = "eu", "us"
"""The regions, and what the workers there are."""


@dataclass(frozen=True)
class Load:
    """What is asked of the two workers.

    Attributes:
      jobs: How many, all alike and all at once.
      tokens: Of each.
      rate: Tokens that a slot generates in a second.
      load_seconds: What it takes to load the model.
      slots: Of each worker.
      home: The region of whoever submits.
    """

    jobs: int
    tokens: int
    rate: int
    load_seconds: float
    slots: int
    home: str

    @property
    def service_seconds(self) -> float:
        """What one job takes a slot."""
        return self.tokens / self.rate


@dataclass(frozen=True)
class Ran:
    """One attempt of a job: where, and when it began and ended, in seconds after all were submitted."""

    region: str
    begun: float
    ended: float


class WarmAndColdStage(Stage):
    """The stage of the core benchmark, with workers that differ in their region and in what they load."""

    def __init__(self, load: Load) -> None:
        super().__init__()
        self._load = load

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            self._write_models()
            self.start_orchestrator()
            self._start(WARM, is_pinned=True)
            self._start(COLD, is_pinned=False)
            self._plane = ControlPlane(self._settings(self._load.home)).open()
            backend = DirectBackend(self._plane, DEFAULT_TENANT)
            self._client = self._ended.enter_context(DirectTether(backend))
            wait_for(self._is_seen, READY_SECONDS, "the client sees one warm and one cold worker")
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _models(self, *, is_pinned: bool) -> list[dict[str, Any]]:
        options = {
            "tokens_per_second": self._load.rate,
            "load_time": round(self._load.load_seconds * 1000),
        }
        # A worker with a single model loads it at once.
        return [
            {"name": MODEL, "engine": "null", "pinned": is_pinned, "options": options},
            {"name": OTHER, "engine": "null"},
        ]

    def _write_models(self) -> None:
        file = self.folder / "tether.toml"
        text = file.read_text("utf-8").partition("[[models]]")[0]
        file.write_text(text, encoding="utf-8")

    def _start(self, region: str, *, is_pinned: bool) -> None:
        self._launch(
            region,
            ["-m", "tether_cli", "worker", "-p", "1", "-t", str(self._load.slots)],
            more={
                "TETHER_WORKER__REGION": region,
                "TETHER_MODELS": json.dumps(self._models(is_pinned=is_pinned)),
            },
        )

    def _settings(self, region: str) -> Settings:
        return load_settings(
            environ={
                "TETHER_WORKER__REGION": region,
                "TETHER_MODELS": json.dumps(self._models(is_pinned=False)),
            },
            file=self.folder / "tether.toml",
        )

    def _pools(self) -> dict[str, PoolView]:
        return {
            view.region: view for view in self._plane.fleet.pools() if view.model == MODEL and view.workers
        }

    def _is_seen(self) -> bool:
        pools = self._pools()
        return {region: pool.warm for region, pool in pools.items()} == {WARM: True, COLD: False} and bool(
            pools[WARM].load_seconds
        )

    def warm_up(self) -> None:
        """Have the warm worker measure its rate: all its slots run two jobs, which only it may."""
        jobs = self._client.submit_many([self._request(region=WARM)] * (2 * self._load.slots))
        for job in jobs:
            job.result(READY_SECONDS)
        wait_for(
            lambda: self._pools()[WARM].slot_tokens_per_second and self._is_at_rest(),
            READY_SECONDS,
            "the warm worker tells its rate, and that it is free",
        )

    def _request(self, region: str = "") -> JobRequest:
        sampling = Sampling(max_tokens=self._load.tokens)
        return JobRequest(model=MODEL, prompt="x", sampling=sampling, region=region)

    def _is_at_rest(self) -> bool:
        return all(pool.free == pool.slots for pool in self._pools().values())

    def run(self) -> list[Ran]:
        """Submit all jobs at once, and wait until they have ended."""
        already = self.settled()
        submitted_ms = self._plane.clock.now_ms()
        jobs = self._client.submit_many([self._request()] * self._load.jobs)
        self.wait_for_settled(
            already + self._load.jobs, READY_SECONDS + self._load.jobs * self._load.service_seconds
        )
        ids = {job.job_id for job in jobs}
        rows = [row for row in self._store.read(_all_attempts) if row[0] in ids]
        return [
            Ran(pool.split(".")[2], (begun - submitted_ms) / 1000, (ended - submitted_ms) / 1000)
            for _, pool, begun, ended in rows
        ]


def _all_attempts(connection: Connection) -> Sequence[tuple[str, str, int, int]]:
    columns = (attempts.c.job_id, attempts.c.pool, attempts.c.started_at, attempts.c.ended_at)
    return connection.execute(select(*columns)).tuples().all()
