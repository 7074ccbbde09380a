"""Fairness measured: what a tenant waits for another, and what many get. Run it: `ops/bench/run fairness`.

Time is counted in steps, in each of which every running job makes the same number of tokens: so the figures
say what was drawn, and not how quick the machine is. The cost of a draw is measured in time.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench_queue import say
from fairness_stage import INPUT_PRICE, OUTPUT_PRICE, FairnessStage, Slots
from report import Figure, describe_machine, table, versions, write_json

from tether.ids import JobId, PoolName, TenantId
from tether.local.redis_server import RedisServer, find_redis_server

LIBRARIES = ("tether", "redis")
POOLS = (PoolName("gpu.cpu.local.one-00000001"), PoolName("gpu.cpu.local.two-00000002"))
POOL = POOLS[:1]

MAX_WAIT = 2.0
MAX_OFF = 0.1
MAX_RATIO = 1.25
WEIGHTS = (1.0, 2.0, 5.0)
TENANTS = (1, 100, 5_000)


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
      flood: Jobs of the tenant that sends all at once.
      visits: Jobs of the one that sends one each second.
      tenants: That have work at once.
      jobs: Of each of them; with equal weights, and with others.
      draws: Timed with each number of tenants.
    """

    flood: int
    visits: int
    tenants: int
    jobs: tuple[int, int]
    draws: int


FULL = Plan(10_000, 1_000, 500, (100, 200), 2_000)
QUICK = Plan(10_000, 60, 500, (20, 100), 300)

MAX_TOKENS = 50
SERVICE_STEPS = 10
TOKENS_PER_STEP = 4
SIZE = (40, SERVICE_STEPS * TOKENS_PER_STEP)


def waits_of_visitor(server: RedisServer, plan: Plan, flood: int, workers: int, slots: int) -> list[float]:
    """What each job of the visitor waited for a slot, in service times of one."""
    with FairnessStage(server, f"visitor-{flood}-{workers}") as stage:
        if flood:
            stage.place(POOLS[0], TenantId("flood"), [SIZE] * flood)
        stations = [Slots(stage.worker(), POOL, slots, TOKENS_PER_STEP) for _ in range(workers)]
        source = random.Random(1)
        placed: dict[JobId, int] = {}
        waits: list[float] = []
        step = 0
        next_at = SERVICE_STEPS
        while len(waits) < plan.visits:
            if step >= next_at:
                (job_id,) = stage.place(POOLS[0], TenantId("visitor"), [SIZE])
                placed[job_id] = step
                # One in a second, at any moment of it.
                next_at += SERVICE_STEPS + source.choice((-1, 0, 1))
            for station in stations:
                waits += [
                    (step - placed[job.job_id]) / SERVICE_STEPS
                    for job in station.step()
                    if job.tenant == "visitor"
                ]
            step += 1
    return waits


def measure_visitor(server: RedisServer, plan: Plan) -> Iterator[Figure]:
    """One sends all its jobs at once, another one each second: a quarter or less of what slots do."""
    for workers, slots in ((1, 4), (4, 2)):
        subject = f"{workers} worker{'s' * (workers > 1)} with {slots} slots"
        say(f"a visitor beside {plan.flood} jobs: {subject}")
        alone = waits_of_visitor(server, plan, 0, workers, slots)
        beside = waits_of_visitor(server, plan, plan.flood, workers, slots)
        longer = max(beside) - max(alone)
        yield Figure("waits alone, longest", max(alone), "service times", subject)
        yield Figure("waits beside the flood, median", statistics.median(beside), "service times", subject)
        yield Figure(
            "waits longer than alone, longest",
            longer,
            "service times",
            subject,
            goal=f"at most {MAX_WAIT:g}",
            met=longer <= MAX_WAIT,
        )


def measure_shares(
    server: RedisServer, jobs: int, tenants: int, weights: Sequence[float]
) -> Iterator[Figure]:
    """Many tenants with work at once, and several workers: what each got at four moments. The last of them is
    when one has no more that waits."""
    told = ", ".join(f"{weight:g}" for weight in weights)
    subject = f"weights {told}" if len(weights) > 1 else "equal weights"
    say(f"{tenants} tenants, {subject}")
    source = random.Random(2)
    of_tenant = {TenantId(f"t{number}"): weights[number % len(weights)] for number in range(tenants)}
    snapshots = []
    with FairnessStage(server, f"shares-{len(weights)}") as stage:
        for tenant, weight in of_tenant.items():
            sizes = [(source.randint(1, MAX_TOKENS), source.randint(1, MAX_TOKENS)) for _ in range(jobs)]
            stage.place(POOLS[0], tenant, sizes, weight=weight)
        stations = [Slots(stage.worker(), POOL, 8, MAX_TOKENS // 2) for _ in range(8)]
        left, drawn = Counter(dict.fromkeys(of_tenant, jobs)), 0
        while min(left.values()) > 0:
            for station in stations:
                for job in station.step():
                    drawn += 1
                    left[TenantId(job.tenant)] -= 1
            served: Counter[TenantId] = Counter()
            for station in stations:
                served.update(station.served)
            snapshots.append(served)
    yield Figure("jobs drawn while all had work", drawn, "", subject)
    one_job = (INPUT_PRICE + OUTPUT_PRICE) * MAX_TOKENS
    for quarter in (1, 2, 3, 4):
        served = snapshots[quarter * len(snapshots) // 4 - 1]
        level = sum(served.values()) / sum(of_tenant.values())
        off = [abs(served[tenant] / weight - level) for tenant, weight in of_tenant.items()]
        outside = sum(each > max(MAX_OFF * level, one_job) for each in off)
        moment = f"{quarter}/4 of it"
        yield Figure(f"furthest from its share, {moment}", 100 * max(off) / level, "%", subject)
        yield Figure(f"the same in jobs of weight 1, {moment}", max(off) / one_job, "", subject)
        yield Figure(
            f"tenants outside {MAX_OFF:.0%} and one job, {moment}",
            outside,
            "",
            subject,
            goal="none",
            met=not outside,
        )


def measure_draw(server: RedisServer, plan: Plan) -> Iterator[Figure]:
    """What a draw takes, by the number of tenants with work, in rounds between each other."""
    stages, ports = {}, {}
    for tenants in TENANTS:
        say(f"draws with {tenants} tenants")
        stage = stages[tenants] = FairnessStage(server, f"draws-{tenants}")
        ports[tenants] = stage.worker()
        each = max(2 * plan.draws // tenants, 2)
        for number in range(tenants):
            stage.place(POOLS[0], TenantId(f"t{number}"), [(20, 1)] * each)
    took: dict[int, list[float]] = {tenants: [] for tenants in TENANTS}
    for _ in range(plan.draws):
        for tenants in TENANTS:
            began = time.perf_counter()
            ports[tenants].draw(1, POOL, busy=True)
            took[tenants].append(time.perf_counter() - began)
    medians = {tenants: statistics.median(times) for tenants, times in took.items()}
    for tenants in TENANTS:
        ratio = medians[tenants] / medians[TENANTS[0]]
        goal = f"at most ×{MAX_RATIO:g} of one tenant's" if tenants > 1 else ""
        yield Figure(
            "a draw, median",
            medians[tenants] * 1e6,
            "µs",
            f"{tenants:,} tenants" if tenants > 1 else "1 tenant",
            ratio=ratio,
            goal=goal,
            met=ratio <= MAX_RATIO if goal else None,
        )
    for stage in stages.values():
        stage.__exit__(None, None, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything: under a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to FILE")
    parser.add_argument("--date", default="", help="the date to write into FILE")
    arguments = parser.parse_args()

    plan = QUICK if arguments.quick else FULL
    load_before = os.getloadavg()[0]
    with RedisServer(append_only=False) as server:
        parts = [
            list(measure_visitor(server, plan)),
            [
                *measure_shares(server, plan.jobs[0], plan.tenants, (1.0,)),
                *measure_shares(server, plan.jobs[1], plan.tenants, WEIGHTS),
            ],
            list(measure_draw(server, plan)),
        ]
    machine = describe_machine(".".join(map(str, find_redis_server().version)))
    loads = f"load {load_before:.1f} before, {os.getloadavg()[0]:.1f} after"
    print(f"{machine.cpu}, {machine.cores} cores, {machine.memory} GiB, {loads}; Redis {machine.redis}\n")
    print(*map(table, parts), sep="\n\n")
    if arguments.json:
        found = [figure for part in parts for figure in part]
        write_json(arguments.json, "fairness", arguments.date, machine, versions(LIBRARIES), found)


if __name__ == "__main__":
    main()
