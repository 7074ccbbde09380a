"""What a fleet costs an orchestrator: processor time, memory, bytes and signatures, in a steady state."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core_processes import processor_seconds
from presence_stage import PresenceStage, Talker

MODELS = 8
INTERVAL = 5.0
MEMBERS, FEEDERS = 4, 2
SEEN_SECONDS = 60.0
PYTHON, SIDECAR = "Python", "sidecar"
_MIB = 2**20
_UNCHECKED = ("duplicate", "size", "json", "version", "network", "topic", "untrusted")
"""What becomes of announcements whose signature is not looked at."""


@dataclass(frozen=True)
class Load:
    """What was measured.

    Attributes:
      workers: How many announced themselves.
      converged: Seconds from the first announcement of the last of them until all were known.
      cores: Of a core that Python, the sidecar and Redis used.
      memory: MiB that Python and the sidecar hold.
      received, sent: Bytes a second of the sidecar.
      announced: Announcements a second that counted.
      rates: Other things a second, by name.
      late: Seconds that the latest announcement was late, of feeders; None of real workers.
    """

    workers: int
    converged: float
    cores: Mapping[str, float]
    memory: Mapping[str, float]
    received: float
    sent: float
    announced: float
    rates: Mapping[str, float]
    late: float | None = None


def measure(
    workers: int, seconds: float, *, signed_ahead: bool, profile: Callable[[int], object] = lambda pid: None
) -> Load:
    """Have so many workers announce themselves, then look at the orchestrator for so many seconds.

    Args:
      signed_ahead: Whether announcements are signed before and their senders connect to nobody else, so that
        the machine is left to the orchestrator.
      profile: Told the orchestrator's process id when the measurement is over, and it all still runs.
    """
    with PresenceStage(workers, models=MODELS, interval=INTERVAL) as stage:
        stage.open_database()
        watcher = stage.watcher("orchestrator", in_swarm=True, tells_pools=False)
        watcher.answer()
        with _fed(stage, workers, seconds) if signed_ahead else _announced(stage, watcher, workers) as senders:
            answer = watcher.ask("wait", members=workers, seconds=SEEN_SECONDS)
            if not answer["is_there"]:
                raise TimeoutError(f"not all of {workers} workers are known after {SEEN_SECONDS:.0f} s")
            last = max(stage.times.of(number)[0] for number in range(workers))
            # Whatever happens at a first time only has happened an interval later.
            time.sleep(INTERVAL)
            before, redis = watcher.ask("usage"), stage.redis_seconds()
            used = _seconds(before)
            time.sleep(seconds)
            after, redis = watcher.ask("usage"), stage.redis_seconds() - redis
            used = {name: total - used[name] for name, total in _seconds(after).items()}
            profile(int(after["pid"]))
            late = max(sender.ask("finish")["late"] for sender in senders) if signed_ahead else None
        if after["members"] != workers:
            raise RuntimeError(f"{after} {before} of {workers} workers are known at the end")
        took = (after["at"] - before["at"]) / 1e9
        counts = _counted(before)
        rates = {name: (count - counts[name]) / took for name, count in _counted(after).items()}
        return Load(
            workers=workers,
            converged=(answer["at"] - last) / 1e9,
            cores={name: total / took for name, total in (used | {"Redis": redis}).items()},
            memory={PYTHON: _resident(after["pid"]), SIDECAR: _resident(after["sidecar"])},
            received=rates.pop("received"),
            sent=rates.pop("sent"),
            announced=rates.pop("announced"),
            rates=rates,
            late=late,
        )


@contextmanager
def _announced(stage: PresenceStage, watcher: Talker, workers: int) -> Iterator[list[Talker]]:
    members = [stage.member(f"member{number}") for number in range(MEMBERS)]
    for number, member in enumerate(members):
        member.answer()
        member.ask("join", numbers=[number])
    # First all know each other, then the others come.
    watcher.ask("wait", members=MEMBERS, seconds=SEEN_SECONDS)
    for number, member in enumerate(members):
        others = list(range(number + MEMBERS, workers, MEMBERS))
        member.tell("add", unit=number, numbers=others, spread=True)
    for member in members:
        member.answer()
    yield members


@contextmanager
def _fed(stage: PresenceStage, workers: int, seconds: float) -> Iterator[list[Talker]]:
    each = workers // FEEDERS
    # Converging takes one interval, the pause another, and there are some seconds between.
    rounds = round((seconds + 2 * INTERVAL) / INTERVAL) + 4
    feeders = [stage.feeder(f"feeder{number}", number * each, each, rounds) for number in range(FEEDERS)]
    for do in ("", "join", "feed"):
        for feeder in feeders:
            if do:
                feeder.tell(do)
        for feeder in feeders:
            feeder.answer()
    yield feeders


def _counted(usage: dict[str, Any]) -> dict[str, float]:
    """What a process has counted until now, in words."""
    status = usage["status"]
    counts = status["counts"]
    by_outcome: Counter[str] = Counter()
    for name, count in usage["outcomes"].items():
        by_outcome[name.rpartition("/")[2]] += count
    return {
        "received": status["bytes"]["in"],
        "sent": status["bytes"]["out"],
        "announced": by_outcome["accepted"],
        "signatures checked, sidecar": counts["verified"],
        "signatures checked, Python": by_outcome.total() - sum(by_outcome[name] for name in _UNCHECKED),
        "copies dropped, sidecar": counts["duplicate"] + counts["old"],
        "copies dropped, Python": by_outcome["duplicate"],
        "announcements told on": counts["sent"],
        "refused or limited": counts["limited"] + sum(counts["refused"].values()),
    }


def _seconds(usage: dict[str, Any]) -> dict[str, float]:
    return processor_seconds({usage["pid"]: PYTHON, usage["sidecar"]: SIDECAR})


def _resident(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text("utf-8")
    return int(text.split("VmRSS:")[1].split()[0]) * 1024 / _MIB
