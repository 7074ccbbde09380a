"""Where the whole path's time goes: processor time by process, thread and function, and Redis by script."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import core_speed
from core_databases import PostgresServer
from core_stage import Stage, wait_for

from tether.broker.scripts import BROKER_SCRIPTS

OWN, TOTAL = 16, 28
"""Functions shown of each thread: by what they use themselves, and with what they call."""

MIN_MICROSECONDS = 5.0
"""Of a thread's time a job, for it to be shown."""

SLOW_LOG_LENGTH = 200_000
SLOW_LOG_MICROSECONDS = 12
"""Redis logs no shorter commands: to log each that a script calls would cost more than the script."""

WRITE_SECONDS = 30.0


def profile(server: PostgresServer | None, jobs: int) -> str:
    """Run the whole path twice, the second time profiled, which makes it slower: a report in words."""
    with Stage(postgres=server) as stage:
        core_speed.start_whole(stage)
        plain = core_speed.whole_path(stage, jobs)
        stage.redis.config_set("slowlog-max-len", SLOW_LOG_LENGTH)
        stage.redis.config_set("slowlog-log-slower-than", SLOW_LOG_MICROSECONDS)
        stage.redis.slowlog_reset()
        core_speed.whole_path(stage, jobs)
        redis_lines = list(_redis_lines(stage, jobs))
    with Stage(postgres=server, profile=True) as stage:
        core_speed.start_whole(stage)
        on = stage.folder / "profile" / "on"
        on.touch()
        profiled = core_speed.whole_path(stage, jobs)
        on.unlink()
        wait_for(lambda: _all_written(on.parent), WRITE_SECONDS, "the processes write their profiles")
        lines = [
            f"Whole path on {stage.database}: {plain.rate:,.0f} jobs/s, profiled "
            f"{profiled.rate:,.0f} jobs/s; {jobs:,} jobs. Processor time a job, not profiled, in µs:",
            "  " + ", ".join(f"{name} {used:,.0f}" for name, used in plain.used.items()),
            *redis_lines,
        ]
        for part in ("submitter", "worker", "orchestrator"):
            lines += _part_lines(part, sorted(on.parent.glob(f"{part}-*.json")), jobs)
    return "\n".join(lines)


def _all_written(folder: Path) -> bool:
    return all(file.with_suffix(".json").exists() for file in folder.glob("*.profiled"))


def _redis_lines(stage: Stage, jobs: int) -> Iterator[str]:
    names = {BROKER_SCRIPTS.sha1(name): name for name in BROKER_SCRIPTS.names()}
    calls: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    entries: list[dict[str, Any]] = stage.redis.slowlog_get(SLOW_LOG_LENGTH)
    for entry in entries:
        words = entry["command"].decode(errors="replace").split(" ", 2)
        name = names.get(words[1], words[1]) if words[0] == "EVALSHA" else words[0]
        calls[name] += 1
        spent[name] += entry["duration"]
    yield f"\nRedis, commands of {SLOW_LOG_MICROSECONDS} µs and more (calls a job, µs a job, µs a call):"
    for name, microseconds in spent.most_common(10):
        each = microseconds / calls[name]
        yield f"  {name:22} {calls[name] / jobs:6.2f} {microseconds / jobs:8.1f} {each:8.1f}"


def _part_lines(part: str, files: list[Path], jobs: int) -> Iterator[str]:
    threads: dict[str, dict[str, list[float]]] = {}
    for file in files:
        for thread, functions in json.loads(file.read_text(encoding="utf-8")).items():
            of_thread = threads.setdefault(thread, {})
            for function, values in functions.items():
                sums = of_thread.setdefault(function, [0.0, 0.0, 0.0])
                of_thread[function] = [a + b for a, b in zip(sums, values, strict=True)]
    yield f"\n{part}, {len(files)} process{'es' if len(files) > 1 else ''}; profiled, a job: calls, µs"
    for thread, functions in sorted(threads.items(), key=lambda item: -_own(item[1])):
        used = _own(functions) / jobs
        if used < MIN_MICROSECONDS:
            continue
        yield f" {thread}: {used:,.0f} µs"
        for title, place, most in (("with what they call", 2, TOTAL), ("in themselves", 1, OWN)):
            yield f"   {title}:"
            for name, values in sorted(functions.items(), key=lambda item: -item[1][place])[:most]:
                yield f"    {values[0] / jobs:8.2f} {values[place] / jobs:8.1f}  {name}"


def _own(functions: dict[str, list[float]]) -> float:
    return sum(values[1] for values in functions.values())
