"""How fast a whole Tether is: pickup, submitting, and whole jobs; Taskiq for comparison."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import queue_stage
from core_stage import Stage
from queue_peers import TASKIQ

Starter: TypeAlias = Callable[[list[str]], dict[str, int]]
"""Starts jobs by their names, and says when that began and ended."""

PORT_PROCESSES, PORTS_PER_PROCESS = 4, 4
PROCESSES, THREADS = 2, 8
JOB_SECONDS = 30.0
WHOLE_SECONDS = 300.0
CHUNK = 250
SUBMITTERS = 2


@dataclass(frozen=True)
class Pauses:
    """Seconds for which workers were idle before each job, drawn between the two by ``source``."""

    shortest: float
    longest: float
    source: random.Random

    def take(self) -> None:
        time.sleep(self.source.uniform(self.shortest, self.longest))


@dataclass(frozen=True)
class Whole:
    """Jobs a second from the first submit to the last settlement, and processor time a job (µs) by part."""

    rate: float
    used: dict[str, float]


def _samples(stage: Stage, samples: int, pauses: Pauses, start: Starter) -> list[float]:
    """Milliseconds from before the client's call to the job's first line on a worker, one job at a time."""
    found = []
    for number in range(samples):
        name = f"stamp-{number}-{time.monotonic_ns()}"
        pauses.take()
        began = start([name])["began"]
        if not stage.ledger.wait_for(
            lambda name=name: bool(stage.ledger.records("finished", name)), JOB_SECONDS
        ):
            raise TimeoutError(f"{name} did not run within {JOB_SECONDS:.0f} s")
        found.append((stage.ledger.records("finished", name)[0].at_ns - began) / 1e6)
    return found


def port_pickup(samples: int, pauses: Pauses) -> list[float]:
    """Place → draw: bare worker ports, each blocking on its own bell."""
    with Stage() as stage:
        stage.open_epoch()
        stage.start_client()
        stage.start_ports(processes=PORT_PROCESSES, ports=PORTS_PER_PROCESS)
        stage.wait_until_ready(PORT_PROCESSES, _placing(stage, "short"))
        return _samples(stage, samples, pauses, _placing(stage, "stamp"))


def start_whole(stage: Stage, *, processes: int = PROCESSES, threads: int = THREADS) -> None:
    """Start all parts, and wait until each worker process has run jobs."""
    stage.start_orchestrator()
    stage.start_worker(processes=processes, threads=threads)
    stage.start_client()
    stage.wait_until_ready(processes, _submitting(stage, "short"))


def worker_pickup(stage: Stage, samples: int, pauses: Pauses) -> list[float]:
    """Place → first line in a slot of `tether worker`."""
    return _samples(stage, samples, pauses, _placing(stage, "stamp"))


def submit_pickup(stage: Stage, samples: int, pauses: Pauses) -> list[float]:
    """Submit → first line in a slot of `tether worker`."""
    return _samples(stage, samples, pauses, _submitting(stage, "stamp"))


def whole_path(stage: Stage, count: int) -> Whole:
    """Submit ``count`` jobs while all parts run, until all are settled in the database."""
    settled = stage.settled()
    before = stage.processor_seconds()
    began = stage.ask("submit_many", count=count, chunk=CHUNK, threads=SUBMITTERS)["began"]
    ended = stage.wait_for_settled(settled + count, WHOLE_SECONDS)
    after = stage.processor_seconds()
    used = {name: (after[name] - before[name]) * 1e6 / count for name in after}
    return Whole(count * 1e9 / (ended - began), used)


def accepted(stage: Stage, count: int) -> float:
    """Jobs a second that one thread's submit_many has accepted, while all slots are busy with other jobs."""
    stage.ask("submit", names=[f"held-{number}" for number in range(PROCESSES * THREADS)], kind="hold")
    held = stage.ledger.wait_for(
        lambda: len(stage.ledger.records("started", prefix="held-")) == PROCESSES * THREADS, JOB_SECONDS
    )
    if not held:
        raise TimeoutError("not all slots could be filled")
    answer = stage.ask("submit_many", count=count, chunk=count, threads=1)
    return count * 1e9 / (answer["ended"] - answer["began"])


def taskiq_whole(count: int) -> float:
    """Bare tasks a second on Taskiq, from the first enqueue to the last execution, its workers running."""
    with queue_stage.Stage(TASKIQ, capacity=count) as stage:
        stage.start_worker("a", processes=PROCESSES, threads=THREADS)
        stage.wait_until_ready(PROCESSES)
        began = time.monotonic_ns()
        stage.enqueue_many("count", count)
        times = stage.ledger.wait_for_count(count, WHOLE_SECONDS)
    return count * 1e9 / (max(map(max, filter(None, times))) - began)


def _placing(stage: Stage, kind: str) -> Starter:
    return lambda names: stage.ask("place", names=names, kind=kind, pool=stage.pool)


def _submitting(stage: Stage, kind: str) -> Starter:
    return lambda names: stage.ask("submit", names=names, kind=kind)
