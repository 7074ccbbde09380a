"""The command line measured: what `tether submit` takes beside its job. Run it with `ops/bench/run cli`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import core_speed
from bench_queue import percentile, say
from edges_stage import EdgesStage
from report import Figure, describe_machine, table, versions, write_json

from tether import Tether
from tether.local.redis_server import find_redis_server

LIBRARIES = ("tether", "click", "msgspec", "fastapi", "uvicorn", "redis", "sqlalchemy")
TOKENS, TOKENS_PER_SECOND = 16, 100.0
"""Of each job; its own time is what a client needs for it that runs already."""

ADDED_MEDIAN_MS = 200.0
SUBMIT = ("submit", "--model", "counter", "--max-tokens", str(TOKENS), "hello")


@dataclass(frozen=True)
class Run:
    """One command: from its start to its end, and the processor time of its process, in milliseconds."""

    wall: float
    processor: float


class CliStage(EdgesStage):
    """A stage whose model takes its time for a few tokens."""

    def slow_model(self) -> None:
        """Have the model make its tokens one after the other. Comes before the start of any part."""
        file = self.settings_file()
        text = file.read_text("utf-8").replace("output_tokens = 1", f"output_tokens = {TOKENS}")
        told = text.replace("tokens_per_second = 0", f"tokens_per_second = {TOKENS_PER_SECOND:g}")
        file.write_text(told, encoding="utf-8")


def run_command(arguments: Sequence[str], environ: Mapping[str, str]) -> Run:
    """Run a command whose output nobody reads.

    Raises:
      RuntimeError: It failed.
    """
    began = time.perf_counter()
    nothing = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
    pid = os.posix_spawn(arguments[0], list(arguments), dict(environ), file_actions=[nothing])
    _, status, used = os.wait4(pid, 0)
    wall = time.perf_counter() - began
    if status:
        raise RuntimeError(f"{' '.join(arguments)} failed: {os.waitstatus_to_exitcode(status)}")
    return Run(wall * 1e3, (used.ru_utime + used.ru_stime) * 1e3)


def measure(samples: int) -> Iterator[Figure]:
    """Commands against one Tether with all its parts, in turn."""
    tether = str(Path(sys.executable).with_name("tether"))
    with CliStage() as stage:
        stage.slow_model()
        core_speed.start_whole(stage, processes=1)
        url, key = stage.start_gateway(), stage.make_key()
        environ = {**os.environ, "TETHER_URL": url, "TETHER_API_KEY": key}
        commands = {
            "python -c pass": (sys.executable, "-c", "pass"),
            "tether --version": (tether, "--version"),
            "tether jobs list": (tether, "jobs", "list"),
            "tether status": (tether, "status"),
        }
        runs: dict[str, list[Run]] = {name: [] for name in (*commands, "tether submit")}
        own: list[float] = []
        added: list[float] = []
        with Tether(url, key) as client:
            client.submit("counter", "warm").result(60)
            for number in range(samples):
                say(f"commands, {number + 1} of {samples}")
                for name, arguments in commands.items():
                    runs[name].append(run_command(arguments, environ))
                began = time.perf_counter()
                result = client.submit("counter", "hello", max_tokens=TOKENS).result(60)
                own.append((time.perf_counter() - began) * 1e3)
                assert len(result.token_ids) == TOKENS, result
                run = run_command((tether, *SUBMIT), environ)
                runs["tether submit"].append(run)
                added.append(run.wall - own[-1])
    for name, found in runs.items():
        for percent, word in ((50, "median"), (95, "p95")):
            yield Figure(f"{name}, {word}", percentile([run.wall for run in found], percent), "ms")
        processor = percentile([run.processor for run in found], 50)
        yield Figure(f"{name}, processor time, median", processor, "ms")
    yield Figure(f"a job of {TOKENS} tokens by a client that runs already, median", percentile(own, 50), "ms")
    middle = percentile(added, 50)
    goal = f"at most {ADDED_MEDIAN_MS:g} ms"
    yield Figure(
        "tether submit over its job's own time, median",
        middle,
        "ms",
        goal=goal,
        met=middle <= ADDED_MEDIAN_MS,
    )
    yield Figure("tether submit over its job's own time, p95", percentile(added, 95), "ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything: half a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to FILE")
    parser.add_argument("--date", default="", help="the date to write into FILE")
    arguments = parser.parse_args()

    figures = list(measure(10 if arguments.quick else 40))
    machine = describe_machine(".".join(map(str, find_redis_server().version)))
    libraries = versions(LIBRARIES)
    print(f"{machine.cpu}, {machine.cores} cores, {machine.memory} GiB; Redis {machine.redis}\n")
    print(table(figures))
    if arguments.json:
        write_json(arguments.json, "cli", arguments.date, machine, libraries, figures)


if __name__ == "__main__":
    main()
