"""Cancellation measured: from DELETE to a stopped engine and a free slot. Run: `ops/bench/run cancel`."""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench_queue import percentile, say
from cancel_stage import CancelStage
from report import Figure, describe_machine, table, versions, write_json

from tether.local.redis_server import find_redis_server

LIBRARIES = ("tether", "dramatiq", "redis", "sqlalchemy", "torch", "transformers")
MAX_STOP_MS = 100.0
MAX_TOKENS = 8_000
LONG_PROMPT = "import os\n" * 150
"""451 tokens, which the bench's worker reads one by one."""


@dataclass(frozen=True)
class Case:
    """A kind of job at work.

    Attributes:
      subject: What figures are of.
      request: Of the job.
      after: Shortest and longest seconds from its engine's begin to the cancellation.
    """

    subject: str
    request: dict[str, object]
    after: tuple[float, float]


_GREEDY = {"model": "demo", "prompt": "The function opens a file and", "temperature": 0, "max_tokens": 480}
CASES = (
    Case("100 tokens a second", {"model": "counter", "prompt": "x", "max_tokens": MAX_TOKENS}, (0.02, 0.2)),
    Case("a token in 10 s", {"model": "slow", "prompt": "x", "max_tokens": MAX_TOKENS}, (0.02, 0.2)),
    Case("demo model, short prompt", _GREEDY, (0.02, 0.2)),
    Case("demo model, long prompt", {**_GREEDY, "prompt": LONG_PROMPT, "max_tokens": 8}, (0.02, 0.2)),
)
FULL, QUICK = 200, 12


@dataclass(frozen=True)
class Cancelled:
    """Milliseconds from DELETE on."""

    answered: float
    stopped: float
    freed: float
    settled: float


def measure(stage: CancelStage, case: Case, count: int, source: random.Random) -> Iterator[Figure]:
    """Cancel so many jobs of a kind, one after the other."""
    say(f"{count} cancellations: {case.subject}")
    found = []
    # Its model is loaded first.
    cancel_one(stage, case, source)
    for _ in range(count):
        one = cancel_one(stage, case, source)
        if one is not None:
            found.append(one)
    rows = {
        "engine stopped": [each.stopped for each in found],
        "slot free": [each.freed for each in found],
        "no hold in the database": [each.settled for each in found],
        "DELETE answered": [each.answered for each in found],
    }
    yield Figure("cancelled", len(found), "", case.subject)
    for name, values in rows.items():
        p95 = percentile(values, 95)
        has_goal = name == "engine stopped"
        yield Figure(f"{name}, median", statistics.median(values), "ms", case.subject)
        yield Figure(
            f"{name}, p95",
            p95,
            "ms",
            case.subject,
            goal=f"at most {MAX_STOP_MS:g} ms" if has_goal else "",
            met=p95 <= MAX_STOP_MS if has_goal else None,
        )
        yield Figure(f"{name}, max", max(values), "ms", case.subject)


def cancel_one(stage: CancelStage, case: Case, source: random.Random) -> Cancelled | None:
    """None where the job had ended before it was cancelled."""
    seed = source.getrandbits(40)
    job_id = stage.submit(**case.request, seed=seed)
    stage.wait_for_note("begun", seed)
    # Where in a step, and in a beat's interval, it is cancelled is part of what is measured.
    time.sleep(source.uniform(*case.after))
    if stage.noted("stopped", seed) is not None:
        return None
    began = time.monotonic_ns()
    stage.cancel(job_id)
    answered = time.monotonic_ns()
    stopped = stage.wait_for_note("stopped", seed)
    settled = stage.wait_for_no_holds(job_id)
    freed = stage.wait_for_note("freed", job_id)
    return Cancelled(*((at - began) / 1e6 for at in (answered, stopped, freed, settled)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything: under a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to FILE")
    parser.add_argument("--date", default="", help="the date to write into FILE")
    arguments = parser.parse_args()

    load_before = os.getloadavg()[0]
    figures: list[Figure] = []
    with CancelStage() as stage:
        stage.start()
        source = random.Random(1)
        for case in CASES:
            figures += measure(stage, case, QUICK if arguments.quick else FULL, source)
        stage.close_doors()
    machine = describe_machine(".".join(map(str, find_redis_server().version)))
    loads = f"load {load_before:.1f} before, {os.getloadavg()[0]:.1f} after"
    print(f"{machine.cpu}, {machine.cores} cores, {machine.memory} GiB, {loads}; Redis {machine.redis}\n")
    print(table(figures))
    if arguments.json:
        write_json(arguments.json, "cancel", arguments.date, machine, versions(LIBRARIES), figures)


if __name__ == "__main__":
    main()
