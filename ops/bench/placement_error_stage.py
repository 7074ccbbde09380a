"""A Tether with a fast and a slow worker, to which jobs come by chance."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from core_stage import READY_SECONDS, Stage, wait_for
from sqlalchemy import Connection, func, select

from tether.config.loading import load_settings
from tether.core.control_plane import ControlPlane
from tether.core.direct.backend import DirectBackend
from tether.core.direct.tether import DirectTether
from tether.discovery.fleet.pool_views import PoolView
from tether.ids import JobId
from tether.jobs import DEFAULT_TENANT
from tether.store.schema import attempts, decisions

_APPS = Path(__file__).parent / "placement_error_apps"
SLOTS = 4
RATES = {"fast": 40.0, "slow": 10.0}
"""Tokens a second of a slot, by the worker's region."""
CAPACITY = SLOTS * sum(RATES.values())
MEDIAN_TOKENS, SIGMA, MAX_TOKENS = 30, 0.8, 200


@dataclass(frozen=True)
class PlacementLoad:
    """What comes.

    Attributes:
      share: Of what the workers can generate.
      seconds: For how long jobs come.
      asked: How many times the tokens that a job generates it asks for.
    """

    share: float
    seconds: float
    asked: int = 1


@dataclass(frozen=True)
class WaitPair:
    """One job's wait in seconds: expected when it was placed, and until a worker began."""

    pool: str
    expected: float
    actual: float


def job_length(source: random.Random) -> int:
    """Tokens of a job: lognormal, at most :data:`MAX_TOKENS`."""
    return max(1, min(MAX_TOKENS, round(MEDIAN_TOKENS * math.exp(SIGMA * source.gauss(0, 1)))))


def _mean_length(samples: int) -> float:
    source = random.Random(0)
    return sum(job_length(source) for _ in range(samples)) / samples


MEAN_TOKENS = _mean_length(20_000)


class PlacementErrorStage(Stage):
    """The stage of the core benchmark, with two workers of one model and of two speeds."""

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            self.start_orchestrator()
            for region in RATES:
                self._start(region)
            settings = load_settings(
                environ={"TETHER_WORKER__REGION": "elsewhere"}, file=self.folder / "tether.toml"
            )
            self._plane = ControlPlane(settings).open()
            backend = DirectBackend(self._plane, DEFAULT_TENANT)
            self._client = self._ended.enter_context(DirectTether(backend))
            wait_for(lambda: len(self._pools()) == len(RATES), READY_SECONDS, "both pools are seen")
            self._measure_rates()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _start(self, region: str) -> None:
        arguments = ["worker", "paced_worker:broker", "-P", str(_APPS), "-p", "1", "-t", str(SLOTS)]
        self._launch(
            region,
            ["-m", "tether_cli", *arguments],
            more={"TETHER_WORKER__REGION": region, "BENCH_TOKENS_PER_SECOND": str(RATES[region])},
        )

    def _pools(self) -> list[PoolView]:
        return [view for view in self._plane.fleet.pools() if view.workers]

    def _measure_rates(self) -> None:
        """Have each worker run some jobs, so that it knows its rate and has loaded its model."""
        for region in RATES:
            jobs = [
                self._client.submit("counter", "x", region=region, max_tokens=40) for _ in range(2 * SLOTS)
            ]
            for job in jobs:
                job.result(READY_SECONDS)
        wait_for(
            lambda: all(
                view.warm and view.slot_tokens_per_second and view.free == view.slots
                for view in self._pools()
            ),
            READY_SECONDS,
            "all workers tell their rates, and that they are free",
        )

    def run(self, load: PlacementLoad, source: random.Random) -> list[WaitPair]:
        """Submit jobs as a Poisson process, and wait until all have begun and ended."""
        mean_gap = MEAN_TOKENS / (CAPACITY * load.share)
        began = due = time.monotonic()
        ids = set()
        while due - began < load.seconds:
            time.sleep(max(0.0, due - time.monotonic()))
            tokens = job_length(source) * load.asked
            ids.add(self._client.submit("counter", "x", max_tokens=tokens, seed=load.asked).job_id)
            due += source.expovariate(1 / mean_gap)
        for job_id in ids:
            self._client.job(job_id).result(READY_SECONDS + 4 * load.seconds)
        wait_for(lambda: self._all_settled(ids), READY_SECONDS, "all is settled", 0.5)
        return [
            WaitPair(pool.split(".")[2], wait_ms / 1000, max(0, begun - decided) / 1000)
            for job_id, pool, wait_ms, decided, begun in self._store.read(_waits)
            if job_id in ids
        ]

    def _all_settled(self, ids: set[JobId]) -> bool:
        return ids <= {row[0] for row in self._store.read(_waits)}


def _waits(connection: Connection) -> Sequence[tuple[JobId, str, int, int, int]]:
    """Of each hand-over that a worker began: the job, the pool, the wait expected in ms, when it was decided
    and when it began."""
    begun = func.min(attempts.c.started_at)
    is_of = (attempts.c.job_id == decisions.c.job_id) & (attempts.c.dispatch == decisions.c.dispatch)
    columns = (decisions.c.job_id, decisions.c.pool, decisions.c.wait_ms, decisions.c.decided_at)
    query = select(*columns, begun).join(attempts, is_of).where(decisions.c.wait_ms.is_not(None))
    found = connection.execute(query.group_by(decisions.c.job_id, decisions.c.dispatch))
    return [(JobId(row[0]), row[1], row[2], row[3], row[4]) for row in found]
