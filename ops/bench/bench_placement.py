"""What a placement costs: one decision, and a change of the fleet. Run it with `ops/bench/run placement`."""

from __future__ import annotations

import argparse
import hashlib
import random
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from bench_queue import say
from placement_fleet import asking_for, make_models
from report import Figure, describe_machine, table, versions, write_json

from tether.config.settings import SchedulingSettings
from tether.discovery.announcements.presence import ModelState, Presence, Supported
from tether.discovery.fleet.fleet import Fleet, apply_all
from tether.discovery.fleet.pool_views import PoolView, pools
from tether.models.registry import ModelVersion, Registry, pool_name
from tether.scheduling.pool_choice import PoolChoice
from tether.store.holds import depths

LIBRARIES = ("tether",)
SIZES = (10, 1_000, 10_000)
MAX_MEDIAN_MS = {1_000: 0.1, 10_000: 0.2}
MODELS, MODELS_PER_WORKER = 100, 6
CLASSES, REGIONS = ("h100", "a10", "cpu"), ("eu", "us", "asia")
FULL_DECISIONS, QUICK_DECISIONS = 20_000, 2_000
CHANGES = 20
NOW_MS = 1_000


def make_fleet(size: int, models: tuple[ModelVersion, ...], source: random.Random) -> Fleet:
    """Workers of three classes in three regions, each with some of the models."""
    heard = [(_presence(number, models, source), None) for number in range(size)]
    return apply_all(Fleet(), heard, NOW_MS)[0]


def _presence(number: int, models: tuple[ModelVersion, ...], source: random.Random) -> Presence:
    gpu_class, region = source.choice(CLASSES), source.choice(REGIONS)
    served = source.sample(models, MODELS_PER_WORKER)
    state = {True: ModelState.WARM, False: ModelState.COLD}
    return Presence(
        pub_key=hashlib.sha256(str(number).encode()).hexdigest(),
        gpu_class=gpu_class,
        region=region,
        slots=8,
        free=source.randint(0, 8),
        supported=tuple(
            Supported(each.name, each.version, each.digest, state[source.random() < 0.5]) for each in served
        ),
        pools=tuple(pool_name(gpu_class, region, each) for each in served),
        latency_hops=source.randint(0, 8),
        tokens_per_second=source.uniform(50, 500),
        boot_counter=1,
        sequence=1,
        nonce="0" * 32,
        issued_at=NOW_MS,
    )


def measure(size: int, decisions: int, source: random.Random) -> Iterator[Figure]:
    """Decide for a fleet that stands still, and add up its pools anew."""
    models = make_models(MODELS)
    fleet = make_fleet(size, models, source)
    views = pools(fleet, NOW_MS + 1)
    held = {view.name: source.randint(0, 40) for view in views}
    store = cast("Any", SimpleNamespace(read=lambda asked: dict(held) if asked is depths else {}))
    choice = PoolChoice(_Standing(views), Registry(models), SchedulingSettings(), store)
    served = {view.model for view in views}
    jobs = [
        asking_for(model, 256, region=region)
        for model in models
        if model.name in served
        for region in ("", *REGIONS)
    ]
    took = sorted(_timed(partial(choice.choose, job)) for job in source.choices(jobs, k=decisions))
    changes = [_timed(lambda: pools(fleet, NOW_MS + 1)) for _ in range(CHANGES)]
    subject = f"{size:,} workers"
    median, goal = statistics.median(took), MAX_MEDIAN_MS.get(size)
    yield Figure("pools", len(views), subject=subject)
    yield Figure(
        "a decision, median",
        median,
        "ms",
        subject,
        goal=f"{subject} at most {goal} ms" if goal else "",
        met=median <= goal if goal else None,
    )
    yield Figure("a decision, P99", took[len(took) * 99 // 100], "ms", subject)
    yield Figure("adding up the pools of a fleet that changed", statistics.median(changes), "ms", subject)


class _Standing:
    """A fleet that stands still."""

    def __init__(self, views: tuple[PoolView, ...]) -> None:
        self._views = views

    def pools(self) -> tuple[PoolView, ...]:
        return self._views


def _timed(act: Callable[[], object]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer decisions")
    parser.add_argument("--seed", type=int, default=1, help="of the fleet and the jobs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to FILE")
    parser.add_argument("--date", default="", help="the date to write into FILE")
    arguments = parser.parse_args()
    figures = []
    for size in SIZES:
        say(f"{size:,} workers, {MODELS} models")
        decisions = QUICK_DECISIONS if arguments.quick else FULL_DECISIONS
        figures += measure(size, decisions, random.Random(arguments.seed))
    machine = describe_machine("")
    print(f"{machine.cpu}, {machine.cores} cores, {machine.memory} GiB\n")
    print(table(figures))
    if arguments.json:
        write_json(arguments.json, "placement", arguments.date, machine, versions(LIBRARIES), figures)


if __name__ == "__main__":
    main()
