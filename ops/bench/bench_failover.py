"""Failover measured: a worker dies, and its streams go on elsewhere. Run it with `ops/bench/run failover`."""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench_queue import say
from failover_stage import FailoverStage, Reader, Scene
from report import Figure, describe_machine, table, versions, write_json

from tether.local.redis_server import find_redis_server
from tether.processes.restarts import RestartPolicy

LIBRARIES = ("tether", "dramatiq", "redis", "uvicorn", "torch", "transformers")
DECILES = 10
LATEST_KILL = 0.6
"""Share of the tokens of the first stream that have been read when a worker dies, at most."""

RATE, TOKENS = 50, 60
NULL = f"""
[[models]]
name = "counter"
engine = "null"
[models.options]
tokens_per_second = {RATE}
output_tokens = {TOKENS}
"""
DEMO = """
[[models]]
name = "tether-demo"
version = "1"
source = "demo"
engine = "transformers"
pinned = true
"""
TWO_WORKERS = Scene(
    model=NULL,
    workers=2,
    slots=2,
    requests=tuple({"model": "counter", "prompt": f"number {number}", "seed": 1} for number in range(2)),
)
ONE_WORKER = Scene(
    model=DEMO,
    workers=1,
    slots=4,
    requests=(
        {"model": "tether-demo", "prompt": "Return the", "max_tokens": 100, "temperature": 0.0},
        {
            "model": "tether-demo",
            "prompt": "Raise an error",
            "max_tokens": 100,
            "temperature": 0.9,
            "seed": 7,
        },
    ),
)


@dataclass(frozen=True)
class Case:
    """A way to die.

    Attributes:
      subject: Its name.
      scene: What runs.
      kill: Kills a worker; returns when, in monotonic nanoseconds.
      restart: Starts again what was killed, after the clients have their streams.
      goals: At most so many seconds, by the name of the figure.
      quick: Kills in a quick run.
      is_supervised: Whether a supervisor lives on that starts it again.
    """

    subject: str
    scene: Scene
    kill: Callable[[FailoverStage, str], int]
    restart: Callable[[FailoverStage, str], None]
    goals: dict[str, float]
    quick: int
    is_supervised: bool = True


def nothing(stage: FailoverStage, name: str) -> None:
    """Its supervisor starts it again."""


CASES = {
    "process": Case(
        "process killed",
        TWO_WORKERS,
        FailoverStage.kill_process,
        nothing,
        {"median": 1.0, "95th percentile": 1.5},
        3,
    ),
    "host": Case(
        "host vanished",
        TWO_WORKERS,
        FailoverStage.kill_host,
        FailoverStage.start_host,
        {"median": 3.5, "95th percentile": 4.0, "longest": 5.0},
        2,
        is_supervised=False,
    ),
    "single": Case(
        "single worker, demo model",
        ONE_WORKER,
        FailoverStage.kill_process,
        nothing,
        {"longest": 5.0},
        2,
    ),
}


def measure(case: Case, kills: int, source: random.Random) -> list[float]:
    """Kill so many times amid streams. Returns seconds from each kill until the last of the streams that it
    interrupted went on.

    Raises:
      RuntimeError: A stream had a gap, a repeat, other tokens than undisturbed, or did not say `rerouted`.
    """
    found = []
    with FailoverStage(case.scene) as stage:
        undisturbed = read_undisturbed(stage)
        for number in range(kills):
            if number % 20 == 0:
                say(f"{case.subject}: kill {number + 1} of {kills}; seconds until its streams went on:")
            if case.is_supervised:
                # One that dies sooner after its start counts as failing, and is started again later.
                time.sleep(RestartPolicy().served_after)
            readers = stage.submit()
            readers[0].wait_for_tokens(source.randint(1, int(LATEST_KILL * len(undisturbed[0]))))
            victim = stage.worker_of(readers[0])
            killed_ns = case.kill(stage, victim)
            for reader in readers:
                reader.join()
            found.append(interruption(readers, undisturbed, killed_ns))
            print(f"{found[-1]:.3f}", flush=True)
            case.restart(stage, victim)
            stage.wait_until_it_draws(victim)
    return found


def read_undisturbed(stage: FailoverStage) -> list[list[str]]:
    """The tokens of the jobs where nothing dies."""
    readers = stage.submit()
    for reader in readers:
        reader.join()
        if not reader.events or reader.events[-1].kind != "finished":
            raise RuntimeError(f"{reader.job_id} did not end undisturbed: {reader.events}")
    return [reader.tokens() for reader in readers]


def interruption(readers: Sequence[Reader], undisturbed: Sequence[list[str]], killed_ns: int) -> float:
    """Seconds from a kill until the last stream that it interrupted went on."""
    gaps = []
    for reader, expected in zip(readers, undisturbed, strict=True):
        kinds = [event.kind for event in reader.events if event.kind != "delta"]
        if reader.tokens() != expected or kinds[-1:] != ["finished"] or "restarted" in kinds:
            raise RuntimeError(f"a stream is not what it is undisturbed: {kinds}, {reader.tokens()}")
        next_ns = reader.tokens_after_ns("rerouted")
        if next_ns is not None:
            gaps.append((next_ns - killed_ns) / 1e9)
    if not gaps:
        raise RuntimeError("no stream said that it was rerouted")
    return max(gaps)


def figures(case: Case, gaps: Sequence[float]) -> Iterator[Figure]:
    """The distribution of what was measured, with the goals."""
    ordered = sorted(gaps)
    values = {
        "shortest": ordered[0],
        "median": statistics.median(ordered),
        "95th percentile": ordered[max(0, -(-95 * len(ordered) // 100) - 1)],
        "longest": ordered[-1],
    }
    yield Figure("kills", len(gaps), "", case.subject)
    for name, value in values.items():
        goal = case.goals.get(name)
        yield Figure(
            name,
            value,
            "s",
            case.subject,
            goal="" if goal is None else f"{case.subject} at most {goal:g} s",
            met=None if goal is None else value <= goal,
        )
    for decile in range(1, DECILES):
        place = max(0, -(-decile * len(ordered) // DECILES) - 1)
        yield Figure(f"decile {decile}", ordered[place], "s", case.subject)


def kept_figures(path: Path | None, subjects: Sequence[str]) -> list[Figure]:
    """The figures of a former run of other cases than these, where there are any."""
    if path is None or not path.exists():
        return []
    stored = json.loads(path.read_text("utf-8"))["figures"]
    return [Figure(**figure) for figure in stored if figure["subject"] not in subjects]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything: under a minute")
    parser.add_argument("--kills", type=int, default=200, help="kills of each case (200)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments at which workers die (1)")
    parser.add_argument(
        "--case",
        action="append",
        choices=CASES,
        help="measure this one alone (repeatable); FILE keeps the figures of the others",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to FILE")
    parser.add_argument("--date", default="", help="the date to write into FILE")
    arguments = parser.parse_args()

    # Threads of a model this small wait for each other, and the longer the busier the machine is.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    cases = [CASES[name] for name in arguments.case or CASES]
    load_before = os.getloadavg()[0]
    found = kept_figures(arguments.json, [case.subject for case in cases])
    for case in cases:
        kills = case.quick if arguments.quick else arguments.kills
        gaps = measure(case, kills, random.Random(arguments.seed))
        found += figures(case, gaps)
    order = [case.subject for case in CASES.values()]
    found.sort(key=lambda figure: order.index(figure.subject))
    machine = describe_machine(".".join(map(str, find_redis_server().version)))
    loads = f"load {load_before:.1f} before, {os.getloadavg()[0]:.1f} after"
    print(f"{machine.cpu}, {machine.cores} cores, {machine.memory} GiB, {loads}; Redis {machine.redis}\n")
    print(table(found))
    if arguments.json:
        write_json(arguments.json, "failover", arguments.date, machine, versions(LIBRARIES), found)


if __name__ == "__main__":
    main()
