"""Placement simulated: how long jobs wait, whoever places them. Run it with `ops/bench/run placement-sim`."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

from bench_queue import say
from placement_fleet import make_scenario
from placement_policies import POLICIES
from placement_sim import JobTimes, PlacementSimulation
from report import Figure, describe_machine, table, versions, write_json

LIBRARIES = ("tether",)
LOADS = (0.5, 0.7)
FULL_JOBS, QUICK_JOBS = 40_000, 4_000
OWN = "Tether"


def figures_of(policy: str, load: float, times: Sequence[JobTimes]) -> list[Figure]:
    """The waits under one policy."""
    waits = statistics.quantiles([each.wait for each in times], n=100)
    totals = statistics.quantiles([each.total for each in times], n=100)
    at = f"load {load:.0%}:"
    return [
        Figure(f"{at} wait, median", waits[49], "s", policy),
        Figure(f"{at} wait, P95", waits[94], "s", policy),
        Figure(f"{at} wait, P99", waits[98], "s", policy),
        Figure(f"{at} to the last token, median", totals[49], "s", policy),
        Figure(f"{at} to the last token, P99", totals[98], "s", policy),
    ]


def with_goals(figures: Sequence[Figure]) -> list[Figure]:
    """The same, each P99 wait of Tether's with its goal."""
    judged = []
    for figure in figures:
        others = [each.value for each in figures if each.name == figure.name and each.subject != OWN]
        if figure.subject == OWN and figure.name.endswith("wait, P99"):
            assert figure.value is not None
            is_least = all(value is not None and figure.value < value for value in others)
            figure = Figure(
                figure.name, figure.value, figure.unit, figure.subject, goal="the least of all", met=is_least
            )
        judged.append(figure)
    return judged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_JOBS:,} jobs in place of {FULL_JOBS:,}")
    parser.add_argument("--seed", type=int, default=1, help="of the fleet and its jobs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to FILE")
    parser.add_argument("--date", default="", help="the date to write into FILE")
    arguments = parser.parse_args()
    jobs = QUICK_JOBS if arguments.quick else FULL_JOBS
    figures = []
    for load in LOADS:
        scenario = make_scenario(arguments.seed, jobs=jobs, load=load)
        for name, make_policy in POLICIES.items():
            say(f"load {load:.0%}, {jobs:,} jobs: {name}")
            figures += figures_of(
                name, load, PlacementSimulation(scenario, make_policy, arguments.seed).run()
            )
    figures = with_goals(figures)
    machine = describe_machine("")
    print(f"{machine.cpu}, {machine.cores} cores, {machine.memory} GiB\n")
    print(table(figures))
    if arguments.json:
        write_json(arguments.json, "placement_sim", arguments.date, machine, versions(LIBRARIES), figures)


if __name__ == "__main__":
    main()
