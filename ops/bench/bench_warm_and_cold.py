"""Jobs for a warm and a cold worker: when the last one ends. Run it with `ops/bench/run warm_and_cold`."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench_queue import say
from report import Figure, describe_machine, table, versions, write_json
from warm_and_cold_schedule import ReadyWorker, best_schedule
from warm_and_cold_stage import COLD, WARM, Load, Ran, WarmAndColdStage

from tether.local.redis_server import find_redis_server

LIBRARIES = ("tether", "dramatiq", "redis")
MAX_TIMES_BEST = 1.2
ROUNDS, QUICK_ROUNDS = 5, 1
JOBS, SLOTS = 40, 4
RATE, TOKENS, LOAD_SECONDS = 40, 80, 5.0
HOMES = {
    "elsewhere": "submitted from a third region",
    WARM: "from the warm worker's",
    COLD: "from the cold worker's",
}
"""What the rounds differ in, by the region of whoever submits."""


def measure(load: Load) -> list[Ran]:
    """Submit to two fresh workers, of which one is warm and knows its rate.

    Raises:
      RuntimeError: A job ran other than once, or not to its end.
    """
    with WarmAndColdStage(load) as stage:
        stage.warm_up()
        ran = stage.run()
    if len(ran) != load.jobs:
        raise RuntimeError(f"{load.jobs} jobs took {len(ran)} attempts")
    return ran


def figures(load: Load, rounds: Sequence[Sequence[Ran]], subject: str) -> Iterator[Figure]:
    """The best schedule, and beside it the longest of the rounds, each with who ran how much of it."""
    workers = [ReadyWorker(load.slots, 0.0), ReadyWorker(load.slots, load.load_seconds)]
    best, counts = best_schedule(load.jobs, load.service_seconds, workers)
    ends = sorted(max(each.ended for each in ran) for ran in rounds)
    longest = max(rounds, key=lambda ran: max(each.ended for each in ran))
    by_region = Counter(each.region for each in longest)
    cold = [each.begun for each in longest if each.region == COLD]
    times = ends[-1] / best
    yield Figure("best possible schedule", best, "s", subject)
    yield Figure("jobs of the warm worker then", counts[0], "", subject)
    yield Figure("jobs of the cold worker then", counts[1], "", subject)
    yield Figure("last job ended, median of the rounds", ends[len(ends) // 2], "s", subject)
    yield Figure("last job ended, longest of the rounds", ends[-1], "s", subject)
    yield Figure("jobs of the warm worker", by_region[WARM], "", subject)
    yield Figure("jobs of the cold worker", by_region[COLD], "", subject)
    yield Figure("its first job began", min(cold, default=None), "s", subject)
    yield Figure(
        "times the best possible",
        times,
        "",
        subject,
        goal=f"{subject} at most {MAX_TIMES_BEST:g}, and both work",
        met=times <= MAX_TIMES_BEST and len(by_region) == 2,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, from a third region: under a minute")
    parser.add_argument("--home", action="append", choices=HOMES, help="measure this one alone (repeatable)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to FILE")
    parser.add_argument("--date", default="", help="the date to write into FILE")
    arguments = parser.parse_args()
    found: list[Figure] = []
    for home in arguments.home or list(HOMES)[: 1 if arguments.quick else None]:
        load = Load(JOBS, TOKENS, RATE, LOAD_SECONDS, SLOTS, home)
        rounds = []
        for number in range(QUICK_ROUNDS if arguments.quick else ROUNDS):
            say(f"{HOMES[home]}: round {number + 1}")
            rounds.append(measure(load))
        found += figures(load, rounds, HOMES[home])
    machine = describe_machine(".".join(map(str, find_redis_server().version)))
    print(f"{machine.cpu}, {machine.cores} cores, {machine.memory} GiB; Redis {machine.redis}\n")
    print(table(found))
    if arguments.json:
        write_json(arguments.json, "warm_and_cold", arguments.date, machine, versions(LIBRARIES), found)


if __name__ == "__main__":
    main()
