"""Expected against actual waits of placed jobs, among real workers. Run: `ops/bench/run placement_error`."""

from __future__ import annotations

import argparse
import os
import random
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench_queue import percentile, say
from placement_error_plot import plot
from placement_error_stage import PlacementErrorStage, PlacementLoad, WaitPair
from report import Figure, describe_machine, table, versions, write_json

from tether.local.redis_server import find_redis_server

LIBRARIES = ("tether", "dramatiq", "redis")
SECONDS, QUICK_SECONDS = 60.0, 15.0
LOADS = {
    "half load": (0.5, 1),
    "full load": (1.0, 1),
    "full load, a third of what is asked for": (1.0, 3),
}
"""By subject: the share of what the workers can generate, and how many times that a job asks for."""


def figures(pairs: Sequence[WaitPair], subject: str) -> Iterator[Figure]:
    """What tells how good the expectation was."""
    errors = [pair.expected - pair.actual for pair in pairs]
    sizes = [abs(error) for error in errors]
    yield Figure("jobs", len(pairs), "", subject)
    yield Figure("expected wait, median", statistics.median(pair.expected for pair in pairs), "s", subject)
    yield Figure("actual wait, median", statistics.median(pair.actual for pair in pairs), "s", subject)
    yield Figure("actual wait, p90", percentile([pair.actual for pair in pairs], 90), "s", subject)
    yield Figure("absolute error, median", statistics.median(sizes), "s", subject)
    yield Figure("absolute error, p90", percentile(sizes, 90), "s", subject)
    yield Figure("bias: expected less actual, mean", statistics.fmean(errors), "s", subject)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="half the load alone, for a quarter of the time: under a minute"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the jobs")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw the waits, as SVG")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to FILE")
    parser.add_argument("--date", default="", help="the date to write into FILE")
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    found: list[Figure] = []
    waits: dict[str, list[WaitPair]] = {}
    for subject, (share, asked) in list(LOADS.items())[: 1 if arguments.quick else None]:
        say(subject)
        load = PlacementLoad(share, QUICK_SECONDS if arguments.quick else SECONDS, asked)
        with PlacementErrorStage() as stage:
            waits[subject] = stage.run(load, random.Random(arguments.seed))
        found += figures(waits[subject], subject)
    machine = describe_machine(".".join(map(str, find_redis_server().version)))
    loads = f"load {load_before:.1f} before, {os.getloadavg()[0]:.1f} after"
    print(f"{machine.cpu}, {machine.cores} cores, {machine.memory} GiB, {loads}; Redis {machine.redis}\n")
    print(table(found))
    if arguments.plot:
        arguments.plot.write_text(plot(waits), encoding="utf-8")
    if arguments.json:
        write_json(arguments.json, "placement_error", arguments.date, machine, versions(LIBRARIES), found)


if __name__ == "__main__":
    main()
