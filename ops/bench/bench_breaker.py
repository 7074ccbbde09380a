"""Circuit breakers measured: what jobs pay where a model fails, or is slow. Run it with `ops/bench/run
breaker`."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench_queue import say
from breaker_stage import (
    HOME,
    HOME_SLOTS,
    HOME_WORKERS,
    SOUND_RATE,
    BreakerStage,
    SteadyLoad,
    all_succeeded,
)
from core_stage import wait_for
from report import Figure, describe_machine, table, versions, write_json

from tether.local.redis_server import find_redis_server
from tether.scheduling.breaker import MAX_TURN_MS

LIBRARIES = ("tether", "dramatiq", "redis", "sqlalchemy")
PATIENCE_SECONDS = 180.0
JOBS_PER_SECOND = 20.0
SLOWER = 10
KNOWN_SECONDS = 1.0
"""Between an opening and when all processes know it."""

FAILS, SLOW = "fails every prompt", "ten times slower, then fails"

MAX_TRIP_SECONDS = 5.0
MAX_BEGUN = 100
MAX_LATE = JOBS_PER_SECOND + HOME_WORKERS * HOME_SLOTS
"""The jobs of that second, and what the region had already."""

MAX_RECOVERY_SECONDS = 2.0
"""Beside the turn of other tenants, where a probe has failed: all jobs are of one."""


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
      rounds: Of each scenario, each on servers of its own.
      warm_seconds: For which all goes well before.
      open_ms: For how long a breaker stays open at first.
    """

    rounds: int
    warm_seconds: float
    open_ms: int


FULL = Plan(3, 15.0, 10_000)
QUICK = Plan(1, 2.0, 2_000)


@dataclass(frozen=True)
class Round:
    """What one round cost.

    Attributes:
      trip: Seconds until the breaker was open.
      begun: Attempts that began in the region until then.
      late: The same from then on until every process knew.
      passed: The same from then on until the repair.
      probes: Jobs that had a turn to try until the repair.
      recovery: Seconds from when a job might try, or the repair where that was later, until it was closed.
      closed: Seconds from the repair until it was closed.
      harmed: Jobs with a failed attempt.
      lost: Jobs that did not end well.
      submitted: All jobs.
    """

    trip: float
    begun: int
    late: int
    passed: int
    probes: int
    recovery: float
    closed: float
    harmed: int
    lost: int
    submitted: int


def measure(plan: Plan, *, is_slow: bool) -> Round:
    """One round."""
    with BreakerStage(open_ms=plan.open_ms) as stage:
        with SteadyLoad(stage, JOBS_PER_SECOND):
            # How long all goes well is part of what is measured.
            time.sleep(plan.warm_seconds)
            before, began = stage.begun(), time.monotonic()
            stage.set_mood(HOME, SOUND_RATE / SLOWER if is_slow else "fails")
            opened = stage.wait_until(PATIENCE_SECONDS, "the breaker opens", is_open=True)
            begun = stage.begun() - before
            time.sleep(KNOWN_SECONDS)
            late = stage.begun() - before - begun
            known = stage.begun()
            probes = 0
            if is_slow:
                stage.set_mood(HOME, "fails")
                wait_for(lambda: _trips(stage) > 1, PATIENCE_SECONDS, "a job has tried and failed")
                probes = _trips(stage) - 1
            passed, repaired = stage.begun() - known, time.monotonic()
            stage.set_mood(HOME, SOUND_RATE)
            breaker = stage.breaker()
            may_try = repaired
            if breaker is not None:
                may_try += max(0.0, breaker.until / 1000 - time.time())
            closed = stage.wait_until(PATIENCE_SECONDS, "the breaker closes", is_open=False)
            used = stage.begun()
            wait_for(lambda: stage.begun() > used + 10, PATIENCE_SECONDS, "the region has jobs again")
        wait_for(
            lambda: sum(stage.states().values()) == stage.submitted and not _open(stage.states()),
            PATIENCE_SECONDS,
            "all have ended",
        )
        states = stage.states()
        harmed, submitted = stage.harmed(), stage.submitted
    lost = 0 if all_succeeded(states, submitted) else submitted - states.get("succeeded", 0)
    recovery = max(0.0, closed - may_try)
    return Round(
        opened - began, begun, late, passed, probes, recovery, closed - repaired, harmed, lost, submitted
    )


def _trips(stage: BreakerStage) -> int:
    breaker = stage.breaker()
    return 0 if breaker is None else breaker.trips


def _open(states: dict[str, int]) -> bool:
    return bool(states.keys() - {"succeeded", "dead", "cancelled", "expired"})


def figures(rounds: Sequence[Round], subject: str, turn_seconds: float) -> Iterator[Figure]:
    """What the rounds of a scenario say together.

    Args:
      turn_seconds: For which other tenants come first.
    """

    def middle(name: str, values: Sequence[float], unit: str, limit: float | None = None) -> Figure:
        value = median(values)
        spread = (min(values), max(values))
        if limit is None:
            return Figure(name, value, unit, subject, spread=spread)
        goal = f"at most {limit:g}{f' {unit}' if unit else ''}"
        return Figure(name, value, unit, subject, spread=spread, goal=goal, met=max(values) <= limit)

    yield middle("open after", [each.trip for each in rounds], "s", MAX_TRIP_SECONDS)
    yield middle("attempts begun there until then", [each.begun for each in rounds], "", MAX_BEGUN)
    yield middle("in the second after", [each.late for each in rounds], "", MAX_LATE)
    extra = [each.passed - each.probes for each in rounds]
    yield middle("later, until the repair, beside probes", extra, "", 0)
    yield middle(
        "closed, after a job might try",
        [each.recovery for each in rounds],
        "s",
        MAX_RECOVERY_SECONDS + turn_seconds,
    )
    yield middle("closed, after the repair", [each.closed for each in rounds], "s")
    yield middle("jobs with a failed attempt", [each.harmed for each in rounds], "", MAX_BEGUN)
    lost, submitted = sum(each.lost for each in rounds), sum(each.submitted for each in rounds)
    yield Figure("jobs that did not end well", lost, "", subject, goal="none", met=not lost)
    yield Figure("jobs", submitted, "", subject)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything: under a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to FILE")
    parser.add_argument("--date", default="", help="the date to write into FILE")
    arguments = parser.parse_args()

    plan = QUICK if arguments.quick else FULL
    load_before = os.getloadavg()[0]
    found: list[Figure] = []
    for subject in (FAILS, SLOW):
        rounds = []
        for number in range(plan.rounds):
            say(f"{subject}, round {number + 1} of {plan.rounds}")
            rounds.append(measure(plan, is_slow=subject == SLOW))
        turn_ms = min(MAX_TURN_MS, plan.open_ms // 2) if subject == SLOW else 0
        found += figures(rounds, subject, turn_ms / 1000)
    machine = describe_machine(".".join(map(str, find_redis_server().version)))
    loads = f"load {load_before:.1f} before, {os.getloadavg()[0]:.1f} after"
    print(f"{machine.cpu}, {machine.cores} cores, {machine.memory} GiB, {loads}; Redis {machine.redis}\n")
    print(table(found))
    if arguments.json:
        write_json(arguments.json, "breaker", arguments.date, machine, versions(LIBRARIES), found)


if __name__ == "__main__":
    main()
