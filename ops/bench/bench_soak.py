"""Whether memory follows the number of jobs done, measured: run it with `ops/bench/run soak`."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

from bench_queue import say
from report import Figure, describe_machine, table, versions, write_json
from soak_growth import GATEWAY, Sample, figures
from soak_stage import SoakStage, sampled

from tether.local.redis_server import find_redis_server

LIBRARIES = ("tether", "redis", "sqlalchemy", "uvicorn")


@dataclass(frozen=True)
class Plan:
    """How much is measured. Seconds; jobs a second; milliseconds for which Redis keeps an ended job."""

    seconds: float
    warm_up_seconds: float
    period_seconds: int
    rest_seconds: float
    rate: float
    workers: int
    threads: int
    result_ttl_ms: int
    judges_growth: bool


FULL = Plan(600, 120, 10, 90, 30, 2, 12, 60_000, judges_growth=True)
QUICK = Plan(24, 10, 1, 12, 15, 1, 12, 3_000, judges_growth=False)
"""Too short for a goal of growth: processes still grow into their size."""


def measure(plan: Plan, samples: list[Sample]) -> list[Figure]:
    """Run the jobs, and put each sample into ``samples`` as it is made."""
    say("starting")
    with SoakStage(workers=plan.workers, threads=plan.threads, result_ttl_ms=plan.result_ttl_ms) as stage:
        for sample in stage.soak(plan.rate, plan.seconds, plan.period_seconds):
            samples.append(sample)
            say(sampled(samples))
        say(f"resting for {plan.rest_seconds:g} s")
        time.sleep(plan.rest_seconds)
        last = samples[-1]
        counts = {"ended": last.ended, "under_way": last.under_way, "surprises": last.surprises}
        rested = stage.sample(last.at_seconds + plan.rest_seconds, counts)
        found = figures(
            samples,
            rested,
            warm_up_seconds=plan.warm_up_seconds,
            life_seconds=plan.result_ttl_ms / 1000,
            judges_growth=plan.judges_growth,
        )
        restarted = stage.restarted()
        return [
            *found,
            Figure("parts that were restarted", restarted, "", GATEWAY, goal="none", met=not restarted),
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything: under a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to FILE")
    parser.add_argument("--date", default="", help="the date to write into FILE")
    arguments = parser.parse_args()

    plan = QUICK if arguments.quick else FULL
    samples: list[Sample] = []
    found = measure(plan, samples)
    machine = describe_machine(".".join(map(str, find_redis_server().version)))
    libraries = versions(LIBRARIES)
    print(f"{machine.cpu}, {machine.cores} cores, {machine.memory} GiB; Redis {machine.redis}")
    print(f"Soak: {plan.rate:g} jobs a second for {plan.seconds:g} s.\n")
    print(table(found))
    if arguments.json:
        write_json(arguments.json, "soak", arguments.date, machine, libraries, found)


if __name__ == "__main__":
    main()
