"""TetherBroker beside other task queues on Redis: run it with `ops/bench/run queue`."""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import queue_losses
import queue_speed
from queue_peers import DRAMATIQ, PEERS, TETHER, Peer
from report import Figure, describe_machine, table, versions, write_json

from tether.local.redis_server import find_redis_server

RECOVERY_GOAL_SECONDS = 4.0
LIBRARIES = (
    "tether",
    "dramatiq",
    "dramatiq-redis-streams",
    "celery",
    "kombu",
    "taskiq",
    "taskiq-redis",
    "redis",
)


@dataclass(frozen=True)
class Plan:
    """How much is measured. Times are in seconds; ``wait`` is how long a lost job may take to come back."""

    rounds: int
    samples: int
    messages: int
    min_idle: float
    max_idle: float
    kills: int
    wait: float


FULL = Plan(rounds=3, samples=40, messages=10_000, min_idle=0.05, max_idle=1.0, kills=5, wait=120.0)
QUICK = Plan(rounds=2, samples=15, messages=5_000, min_idle=0.05, max_idle=0.4, kills=3, wait=30.0)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def percentile(values: Sequence[float], percent: int) -> float:
    """The value below which ``percent`` of 100 of the values lie, interpolated."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def measure_speed(peers: list[Peer], plan: Plan, seed: int) -> list[Figure]:
    """Pickup and rates, all peers in every round, so that a slow minute of the machine meets them all."""
    pickups: dict[Peer, list[list[float]]] = {peer: [] for peer in peers}
    rates: dict[Peer, list[queue_speed.Rates]] = {peer: [] for peer in peers}
    for number in range(plan.rounds):
        for peer in peers[number % len(peers) :] + peers[: number % len(peers)]:
            say(f"round {number + 1} of {plan.rounds}: {peer.name}")
            rates[peer].append(queue_speed.rates(peer, plan.messages))
            pickups[peer].append(
                queue_speed.pickup(
                    peer, plan.samples, plan.min_idle, plan.max_idle, random.Random(seed + number)
                )
            )
    figures = []
    for percent, name in ((50, "median"), (95, "p95"), (99, "p99")):
        for peer in peers:
            of_rounds = [percentile(samples, percent) for samples in pickups[peer]]
            pooled = percentile([sample for samples in pickups[peer] for sample in samples], percent)
            spread = (min(of_rounds), max(of_rounds))
            figures.append(Figure(f"idle pickup, {name}", pooled, "ms", peer.name, spread=spread))
    for attribute in ("enqueue", "drain"):
        for peer in peers:
            values = [getattr(of_round, attribute) for of_round in rates[peer]]
            spread = (min(values), max(values))
            figures.append(Figure(attribute, statistics.median(values), "/s", peer.name, spread=spread))
    return figures


def measure_recovery(peer: Peer, plan: Plan) -> list[Figure]:
    """Time to the second start of a killed worker's job, over several kills."""
    found = queue_losses.recovery(peer, plan.kills, plan.wait)
    late = None in found
    times = [plan.wait if seconds is None else seconds for seconds in found]
    name = "recovery after kill -9"
    return [
        Figure(f"{name}, longest", max(times), "s", peer.name, lower_bound=late),
        Figure(f"{name}, median", statistics.median(times), "s", peer.name, lower_bound=late),
    ]


def tally_figures(after: str, peer: Peer, tally: queue_losses.Tally) -> list[Figure]:
    if tally.revived:
        say(f"{peer.name}: {tally.revived} processes ended by themselves {after} and were started again")
    return [
        Figure(f"lost {after}, of {tally.accepted}", tally.lost, "", peer.name),
        Figure(f"doubled {after}, of {tally.accepted}", tally.doubled, "", peer.name),
    ]


def at_once(peers: Sequence[Peer], measure: Callable[[Peer], list[Figure]]) -> list[Figure]:
    """Measure all peers side by side, each on its own server: what takes long here is waiting."""
    with ThreadPoolExecutor(len(peers), thread_name_prefix="bench-peer") as pool:
        return [figure for figures in pool.map(measure, peers) for figure in figures]


def measure_losses(peers: Sequence[Peer], plan: Plan, seed: int) -> list[Figure]:
    def after_death(peer: Peer) -> list[Figure]:
        return tally_figures("after kill -9", peer, queue_losses.death(peer, plan.wait, random.Random(seed)))

    say(f"a worker's death, all at once, {plan.wait:.0f} s")
    figures = at_once(peers, after_death)
    say(f"an outage of Redis, all at once, {plan.wait:.0f} s")
    return figures + at_once(
        peers, lambda peer: tally_figures("after an 8 s outage", peer, queue_losses.outage(peer, plan.wait))
    )


def judge(figures: Sequence[Figure]) -> list[Figure]:
    """Add the ratios to TetherBroker, and to its figures the goals."""
    by_name: dict[str, dict[str, Figure]] = {}
    for figure in figures:
        by_name.setdefault(figure.name, {})[figure.subject] = figure
    judged = []
    for figure in figures:
        own = by_name[figure.name][TETHER.name].value
        if figure.unit and own and figure.value is not None:
            figure = replace(figure, ratio=figure.value / own)
        if figure.subject == TETHER.name:
            figure = _with_goal(figure, by_name[figure.name])
        judged.append(figure)
    return judged


def _with_goal(own: Figure, subjects: dict[str, Figure]) -> Figure:
    others = [f.value for name, f in subjects.items() if name != own.subject and f.value is not None]
    if own.value is None:
        return own
    if own.name == "idle pickup, median" and others:
        return replace(own, goal="no slower than the fastest", met=own.value <= min(others))
    if own.name == "drain" and (dramatiq := subjects[DRAMATIQ.name].value) is not None:
        return replace(own, goal="at least Dramatiq's", met=own.value >= dramatiq)
    if own.name == "recovery after kill -9, longest":
        met = own.value <= RECOVERY_GOAL_SECONDS and not own.lower_bound
        return replace(own, goal=f"at most {RECOVERY_GOAL_SECONDS:.0f} s", met=met)
    if own.name.startswith(("lost ", "doubled ")):
        return replace(own, goal="0", met=own.value == 0)
    return own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="TetherBroker and Dramatiq only, under a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to FILE")
    parser.add_argument("--date", default="", help="the date to write into FILE")
    parser.add_argument("--seed", type=int, default=1, help="of the idle pauses' lengths")
    arguments = parser.parse_args()

    plan = QUICK if arguments.quick else FULL
    wanted = [TETHER, DRAMATIQ] if arguments.quick else list(PEERS)
    peers = [peer for peer in wanted if peer.installed]
    for peer in wanted:
        if peer not in peers:
            say(f"left out: {peer.name} (package {peer.distribution} is not installed here)")
    figures = measure_speed(peers, plan, arguments.seed)
    say(f"recovery: {TETHER.name}")
    figures += measure_recovery(TETHER, plan)
    if not arguments.quick:
        say(f"recovery: the others at once, at most {plan.wait:.0f} s")
        figures += at_once(peers[1:], lambda peer: measure_recovery(peer, plan))
        figures += measure_losses(peers, plan, arguments.seed)
    figures = judge(figures)

    redis = ".".join(map(str, find_redis_server().version))
    machine, libraries = describe_machine(redis), versions(LIBRARIES)
    print(
        f"{machine.cpu}, {machine.cores} cores, {machine.memory} GiB, Python {machine.python}, Redis {redis}"
    )
    print(", ".join(f"{name} {version}" for name, version in libraries.items()))
    print(table(figures))
    if arguments.json:
        write_json(arguments.json, "queue", arguments.date, machine, libraries, figures)


if __name__ == "__main__":
    main()
