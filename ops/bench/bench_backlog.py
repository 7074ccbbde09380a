"""What a backlog costs everybody else, measured: run it with `ops/bench/run backlog`."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import core_speed
from backlog_memory import FULL_MEMORY, QUICK_MEMORY, measure_memory
from backlog_stage import DEAD, LIVE, BacklogStage
from bench_queue import percentile, say
from report import Figure, describe_machine, table, versions, write_json

from tether import Tether
from tether.local.redis_server import find_redis_server

LIBRARIES = ("tether", "redis", "sqlalchemy")
STATEMENTS = "statements in a step of the waiting loop"
WITHOUT, WITH = "no backlog", "backlog"
ROUNDS = 5
MAX_LOAD_PERCENT = 1.0
MAX_RATIO = 1.1
PASSING_SECONDS = 600.0
PARKED, MEMORY = "parked", "memory"


@dataclass(frozen=True)
class Plan:
    """How much is measured: parked jobs, seconds of rest, submissions in each round."""

    parked: int
    rest_seconds: float
    samples: int


FULL = Plan(1_000_000, 20.0, 200)
QUICK = Plan(60_000, 5.0, 40)


def measure_parked(plan: Plan) -> Iterator[Figure]:
    """One Tether with parked jobs of a model that nobody serves and one without, in turn."""
    with BacklogStage() as empty, BacklogStage() as full:
        stages = {WITHOUT: empty, WITH: full}
        for stage in stages.values():
            core_speed.start_whole(stage)
        say(f"seeding {plan.parked} parked jobs")
        full.seed(plan.parked, DEAD)
        for subject, stage in stages.items():
            # What the seeding left to be done (checkpoints of the database) is done by then.
            time.sleep(plan.rest_seconds / 2)
            yield Figure(STATEMENTS, stage.statements_of_a_step(), "", subject)
            say(f"resting, {subject}")
            before = stage.processor_seconds()["orchestrator"]
            time.sleep(plan.rest_seconds)
            used = stage.processor_seconds()["orchestrator"] - before
            yield Figure("load of the orchestrator at rest", used * 100 / plan.rest_seconds, "%", subject)
        say("submissions, in turn")
        yield from _submissions(plan, stages)
        for subject, stage in stages.items():
            say(f"a job that waits behind them, {subject}")
            yield Figure("a due job of a served model, until it ended", _passing(stage), "s", subject)


def _submissions(plan: Plan, stages: dict[str, BacklogStage]) -> Iterator[Figure]:
    found: dict[str, list[list[float]]] = {subject: [] for subject in stages}
    clients = {subject: Tether.direct(stage.settings()) for subject, stage in stages.items()}
    try:
        for _ in range(ROUNDS):
            for subject, client in clients.items():
                samples = []
                for _ in range(plan.samples):
                    began = time.perf_counter()
                    client.submit(LIVE, "count", max_tokens=1)
                    samples.append((time.perf_counter() - began) * 1e3)
                found[subject].append(samples)
    finally:
        for client in clients.values():
            client.close()
    for subject, rounds in found.items():
        medians = [percentile(samples, 50) for samples in rounds]
        yield Figure(
            "submit, median", statistics.median(medians), "ms", subject, spread=(min(medians), max(medians))
        )
        yield Figure("submit, p99", percentile(list(chain(*rounds)), 99), "ms", subject)


def _passing(stage: BacklogStage) -> float:
    began = time.monotonic()
    stage.wait_for_end(stage.seed(1, LIVE), PASSING_SECONDS)
    return time.monotonic() - began


def judge(figures: Sequence[Figure]) -> Iterator[Figure]:
    """Add the goals, and ratios to what there is without a backlog."""
    without = {figure.name: figure.value for figure in figures if figure.subject == WITHOUT}
    for figure in figures:
        base = without.get(figure.name)
        if figure.subject != WITH or figure.value is None or not base:
            yield figure
            continue
        ratio = figure.value / base
        judged = replace(figure, ratio=ratio)
        if figure.name == STATEMENTS:
            judged = replace(judged, goal="as many as without", met=ratio <= 1)
        elif figure.name == "load of the orchestrator at rest":
            goal = f"at most {MAX_LOAD_PERCENT:g} % more than without"
            judged = replace(judged, goal=goal, met=figure.value - base <= MAX_LOAD_PERCENT)
        elif figure.name == "submit, median":
            judged = replace(judged, goal=f"at most {MAX_RATIO:g} x that without", met=ratio <= MAX_RATIO)
        yield judged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="less of everything: under a minute for each half"
    )
    parser.add_argument("--only", choices=(PARKED, MEMORY), help="one half of it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to FILE")
    parser.add_argument("--date", default="", help="the date to write into FILE")
    arguments = parser.parse_args()

    plan = QUICK if arguments.quick else FULL
    memory = QUICK_MEMORY if arguments.quick else FULL_MEMORY
    figures: list[Figure] = []
    if arguments.only != MEMORY:
        figures += judge(list(measure_parked(plan)))
    if arguments.only != PARKED:
        figures += measure_memory(memory)
    machine = describe_machine(".".join(map(str, find_redis_server().version)))
    libraries = versions(LIBRARIES)
    print(f"{machine.cpu}, {machine.cores} cores, {machine.memory} GiB; Redis {machine.redis}")
    parked = [figure for figure in figures if figure.subject]
    if parked:
        print(f"\n{plan.parked:,} parked jobs of a model that nobody serves:\n")
        print(table(parked))
    queued = [figure for figure in figures if not figure.subject]
    if queued:
        print(f"\n{memory.jobs:,} queued jobs of 20 KB, a Redis of {memory.redis_bytes / 1e6:.0f} MB:\n")
        print(table(queued))
    if arguments.json:
        write_json(arguments.json, "backlog", arguments.date, machine, libraries, figures)


if __name__ == "__main__":
    main()
