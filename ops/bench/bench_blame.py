"""Blame measured: what jobs pay where workers die or fail. Run it with `ops/bench/run blame`."""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench_queue import say
from blame_stage import BlameStage
from core_stage import wait_for
from report import Figure, describe_machine, table, versions, write_json

from tether.ids import JobId
from tether.jobs import JobState
from tether.local.redis_server import find_redis_server

LIBRARIES = ("tether", "dramatiq", "redis", "sqlalchemy")
SLOTS, LOG2_SLOTS = 4, 2
PATIENCE_SECONDS = 600.0
WORKER = "worker"

MAX_RATIO = 2.0
MAX_DEATHS = 3 + LOG2_SLOTS
MAX_EXTRA = 1 + LOG2_SLOTS
MAX_FAILED = 20
KILLED, KILLER, BROKEN = "killed from outside", "a job that kills", "a broken worker"


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
      jobs: Of the worker that is killed; twice, as they run undisturbed first.
      kills: Of that worker.
      tokens: Of each of those jobs, made one after the other at ``rate`` a second.
      rate: Tokens a second.
      served: Shortest and longest seconds for which a process runs jobs until it is killed.
      rounds: With one job that kills its process and ``neighbours`` that don't.
      neighbours: Of that job. They must not run out before it is found.
      broken_jobs: For a good and a broken worker.
    """

    jobs: int
    kills: int
    tokens: int
    rate: float
    served: tuple[float, float]
    rounds: int
    neighbours: int
    broken_jobs: int


FULL = Plan(200, 20, 20, 10, (1.5, 6.0), 3, 40, 200)
QUICK = Plan(24, 2, 20, 20, (1.0, 2.0), 1, 48, 200)


def measure_kills(plan: Plan, source: random.Random) -> Iterator[Figure]:
    """One worker, killed from outside again and again."""
    prompts = [f"number {number}" for number in range(plan.jobs)]
    with BlameStage(tokens=plan.tokens, tokens_per_second=plan.rate) as stage:
        stage.start_orchestrator()
        stage.start_blamed(WORKER, threads=SLOTS)
        say(f"{plan.jobs} jobs run undisturbed")
        first = stage.submit(prompts)
        wait_for(lambda: bool(stage.serving(first)), PATIENCE_SECONDS, "the first job runs")
        began = time.monotonic()
        wait_for(lambda: not stage.unfinished(first), PATIENCE_SECONDS, "all have ended")
        undisturbed = time.monotonic() - began

        say(f"{plan.jobs} jobs, and {plan.kills} kills")
        job_ids = stage.submit(prompts)
        began = time.monotonic()
        killed = kill_again_and_again(stage, job_ids, plan, source)
        last_kill = time.monotonic()
        rest = stage.unfinished(job_ids)
        wait_for(
            lambda: bool(stage.serving(job_ids) - killed), PATIENCE_SECONDS, "a job runs after the last kill"
        )
        back = time.monotonic() - last_kill
        wait_for(lambda: not stage.unfinished(job_ids), PATIENCE_SECONDS, "all have ended")
        took = time.monotonic() - last_kill
        dead = stage.states_of(job_ids).count(JobState.DEAD)
        pauses = stage.pauses_of(WORKER)
        deaths = stage.deaths_of(job_ids)

    name = f"dead, of {plan.jobs} jobs under {plan.kills} kills"
    yield Figure(name, dead, "", KILLED, goal="none", met=not dead)
    ratio = took / (undisturbed * rest / plan.jobs)
    goal = f"at most {MAX_RATIO:g}"
    yield Figure(
        "the rest after the last kill, beside undisturbed",
        ratio,
        "x",
        KILLED,
        goal=goal,
        met=ratio <= MAX_RATIO,
    )
    yield Figure("jobs left at the last kill", rest, "", KILLED)
    yield Figure("time that they took", took, "s", KILLED)
    yield Figure("of it, until one ran again", back, "s", KILLED)
    yield Figure(f"{plan.jobs} jobs, undisturbed", undisturbed, "s", KILLED)
    yield Figure("from the first to the last kill's end", last_kill - began, "s", KILLED)
    yield Figure("the supervisor's pauses, longest", max(pauses), "s", KILLED)
    yield Figure("the supervisor's pauses, together", sum(pauses), "s", KILLED)
    yield Figure("deaths that one job was part of, most", max(deaths), "", KILLED)


def kill_again_and_again(
    stage: BlameStage, job_ids: Sequence[JobId], plan: Plan, source: random.Random
) -> set[str]:
    """Kill each process of the worker some time after it began to run jobs. Return their boot ids."""
    killed: set[str] = set()
    for number in range(plan.kills):
        wait_for(
            lambda: not stage.serving(job_ids) <= killed,
            PATIENCE_SECONDS,
            f"a job runs after {number} kills",
        )
        # How long a process lives is part of what is measured.
        time.sleep(source.uniform(*plan.served))
        killed.update(stage.serving(job_ids))
        stage.kill_processes_of(WORKER)
    return killed


@dataclass(frozen=True)
class Round:
    """One job that kills its process: its deaths, the most of a neighbour's, how many neighbours were lost,
    and seconds until all had ended."""

    deaths: int
    extra: int
    lost: int
    seconds: float


def run_with_killer(plan: Plan) -> Round:
    """
    Raises:
      RuntimeError: The job that kills its process did not end as dead.
    """
    with BlameStage(tokens=plan.tokens, tokens_per_second=plan.rate) as stage:
        stage.start_orchestrator()
        stage.start_blamed(WORKER, "blame_killer", threads=SLOTS)
        before = stage.submit([f"number {number}" for number in range(SLOTS - 1)])
        wait_for(lambda: bool(stage.serving(before)), PATIENCE_SECONDS, "the first job runs")
        began = time.monotonic()
        (killer,) = stage.submit(["kill"])
        after = stage.submit([f"number {number}" for number in range(SLOTS - 1, plan.neighbours)])
        everybody = [killer, *before, *after]
        wait_for(lambda: not stage.unfinished(everybody), PATIENCE_SECONDS, "all have ended")
        seconds = time.monotonic() - began
        state, *others = stage.states_of(everybody)
        if state is not JobState.DEAD:
            raise RuntimeError(f"the job that kills its process ended as {state}")
        lost = sum(other is not JobState.SUCCEEDED for other in others)
        deaths, *of_others = stage.deaths_of(everybody)
    return Round(deaths, max(of_others), lost, seconds)


def measure_killer(plan: Plan) -> Iterator[Figure]:
    """A job that kills its process at once, and its neighbours."""
    rounds = []
    for number in range(plan.rounds):
        say(f"a job that kills its process, round {number + 1} of {plan.rounds}")
        rounds.append(run_with_killer(plan))
    worst = max(each.deaths for each in rounds)
    name = f"deaths until it is dead, {SLOTS} slots, most of {plan.rounds}"
    yield Figure(name, worst, "", KILLER, goal=f"at most {MAX_DEATHS}", met=worst <= MAX_DEATHS)
    worst = max(each.extra for each in rounds)
    goal = f"at most {MAX_EXTRA}"
    yield Figure("extra attempts of a neighbour, most", worst, "", KILLER, goal=goal, met=worst <= MAX_EXTRA)
    lost = sum(each.lost for each in rounds)
    name = f"neighbours that did not succeed, of {plan.rounds * plan.neighbours}"
    yield Figure(name, lost, "", KILLER, goal="none", met=not lost)
    yield Figure("until all had ended, longest", max(each.seconds for each in rounds), "s", KILLER)


def measure_broken(plan: Plan) -> Iterator[Figure]:
    """A good worker, and one whose engine always raises."""
    say(f"{plan.broken_jobs} jobs, a good and a broken worker")
    with BlameStage(tokens=8, tokens_per_second=100) as stage:
        stage.start_orchestrator()
        stage.start_blamed("good", threads=SLOTS)
        stage.start_blamed("broken", "blame_broken", threads=SLOTS)
        began = time.monotonic()
        job_ids = stage.submit(["hello"] * plan.broken_jobs)
        wait_for(lambda: not stage.unfinished(job_ids), PATIENCE_SECONDS, "all have ended")
        took = time.monotonic() - began
        succeeded = stage.states_of(job_ids).count(JobState.SUCCEEDED)
        failed = stage.failed_attempts()
    goal = f"all {plan.broken_jobs}"
    yield Figure("succeeded", succeeded, "", BROKEN, goal=goal, met=succeeded == plan.broken_jobs)
    yield Figure(
        "failed attempts", failed, "", BROKEN, goal=f"at most {MAX_FAILED}", met=failed <= MAX_FAILED
    )
    yield Figure(f"{plan.broken_jobs} jobs, from before they were submitted", took, "s", BROKEN)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything: under a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to FILE")
    parser.add_argument("--date", default="", help="the date to write into FILE")
    arguments = parser.parse_args()

    plan = QUICK if arguments.quick else FULL
    load_before = os.getloadavg()[0]
    parts = [
        list(measure_kills(plan, random.Random(1))),
        list(measure_killer(plan)),
        list(measure_broken(plan)),
    ]
    machine = describe_machine(".".join(map(str, find_redis_server().version)))
    loads = f"load {load_before:.1f} before, {os.getloadavg()[0]:.1f} after"
    print(f"{machine.cpu}, {machine.cores} cores, {machine.memory} GiB, {loads}; Redis {machine.redis}\n")
    print(*map(table, parts), sep="\n\n")
    if arguments.json:
        found = [figure for part in parts for figure in part]
        write_json(arguments.json, "blame", arguments.date, machine, versions(LIBRARIES), found)


if __name__ == "__main__":
    main()
