"""What one Redis server does for running jobs: appends a second, and what an empty draw costs it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from core_stage import Stage

WRITERS = 3


@dataclass(frozen=True)
class Appends:
    """Appends a second by all writers together.

    Attributes:
      rate: Growths of one attempt, of one token each.
      cost: Microseconds of Redis's processor time for each, all that it does for them counted.
      load: Share of one core that Redis used meanwhile.
    """

    rate: float
    cost: float
    load: float


def appends(batch: int, seconds: float) -> Appends:
    """Let writers call append_many for ``batch`` attempts each, as fast as they can."""
    with Stage() as stage:
        stage.open_epoch()
        writers = [
            stage.launch_talker(f"writer{number}", "core_appends.py", str(batch), str(seconds))
            for number in range(WRITERS)
        ]
        for writer in writers:
            stage.hear(writer)
        used, began = _redis_seconds(stage), time.monotonic()
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write(b"go\n")
            writer.stdin.flush()
        written = sum(stage.hear(writer)["appends"] for writer in writers)
        spent, took = _redis_seconds(stage) - used, time.monotonic() - began
    return Appends(written / took, spent * 1e6 / written, spent / took)


@dataclass(frozen=True)
class EmptyDraw:
    """Microseconds of one draw that finds nothing: of Redis, and of the caller's round trip."""

    redis: float
    caller: float


def empty_draws(pools: tuple[int, ...], count: int) -> dict[int, EmptyDraw]:
    """Cost of an empty draw from so many pools."""
    found = {}
    with Stage() as stage:
        stage.open_epoch()
        stage.start_client()
        for number in pools:
            stage.ask("draw_nothing", pools=number, count=count // 10)
            stage.redis.config_resetstat()
            answer = stage.ask("draw_nothing", pools=number, count=count)
            caller = (answer["ended"] - answer["began"]) / 1e3 / count
            found[number] = EmptyDraw(_script_microseconds(stage) / (count + 1), caller)
    return found


def _redis_seconds(stage: Stage) -> float:
    statistics: dict[str, Any] = stage.redis.info("cpu")
    return float(statistics["used_cpu_user"]) + float(statistics["used_cpu_sys"])


def _script_microseconds(stage: Stage) -> float:
    """What Redis has spent in scripts, with the commands in them, since its counters were reset."""
    statistics: dict[str, Any] = stage.redis.info("commandstats")
    return float(statistics["cmdstat_evalsha"]["usec"])
