"""What a fleet costs an orchestrator: processor time, memory, bytes and signatures, in a steady state."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core_processes import processor_seconds
from presence_stage import PresenceStage, Talker

MODELS = 8
INTERVAL = 5.0
MEMBERS, FEEDERS = 4, 2
SPARE_ROUNDS = 2
SEEN_SECONDS = 20.0
PYTHON, SIDECAR = "Python", "sidecar"
CHECKED_IN_PYTHON, CHECKED_IN_SIDECAR = "signatures checked, Python", "signatures checked, sidecar"
RECEIVED, SENT = "received", "sent"
"""KiB of the sidecar."""

ACCEPTED, DROPPED_IN_PYTHON = "announcements that count", "copies dropped, Python"
OF_PYTHON = (ACCEPTED, CHECKED_IN_PYTHON, DROPPED_IN_PYTHON)
_MIB = 2**20
_UNCHECKED = ("duplicate", "size", "json", "version", "network", "topic", "untrusted")
"""What becomes of announcements whose signature is not looked at."""


@dataclass(frozen=True)
class Load:
    """What was measured.

    Attributes:
      workers: How many announced themselves.
      known: How many of them the orchestrator knew at the end.
      converged: Seconds from the first announcement of the last of them until all were known; None where they
        never were.
      cores: Of a core that Python, the sidecar and Redis used.
      memory: MiB that Python and the sidecar hold.
      rates: Things a second, by name; None where the sidecar told nothing because Python did not keep up.
      late: Seconds that the latest announcement was late, of feeders; None of real workers.
    """

    workers: int
    known: int
    converged: float | None
    cores: Mapping[str, float]
    memory: Mapping[str, float]
    rates: Mapping[str, float | None]
    late: float | None = None

    @property
    def costs(self) -> dict[str, float]:
        """Microseconds of processor time an announcement: of Python for each that it read, of the sidecar for
        each that was sent."""
        read = self.rates[CHECKED_IN_PYTHON]
        of_python = {PYTHON: self.cores[PYTHON] / read * 1e6} if read else {}
        return of_python | {SIDECAR: self.cores[SIDECAR] / (self.workers / INTERVAL) * 1e6}


def measure(workers: int, seconds: float, *, signed_ahead: bool) -> Load:
    """Have so many workers announce themselves, then look at the orchestrator for so many seconds.

    Args:
      signed_ahead: Whether announcements are signed before and their senders connect to nobody else, so that
        the machine is left to the orchestrator.
    """
    with PresenceStage(workers, models=MODELS, interval=INTERVAL) as stage:
        stage.open_database()
        watcher = stage.watcher("orchestrator", in_swarm=True, tells_pools=False)
        watcher.answer()
        with (
            _fed(stage, workers, seconds) if signed_ahead else _announced(stage, watcher, workers) as senders
        ):
            answer = watcher.ask("wait", members=workers, seconds=SEEN_SECONDS)
            last = max(stage.times.of(number)[0] for number in range(workers))
            # Whatever happens at a first time only has happened an interval later.
            time.sleep(INTERVAL)
            before, redis = watcher.ask("usage"), stage.redis_seconds()
            used = _seconds(before)
            time.sleep(seconds)
            after, redis = watcher.ask("usage"), stage.redis_seconds() - redis
            used = {name: total - used[name] for name, total in _seconds(after).items()}
            late = max(sender.ask("finish")["late"] for sender in senders) if signed_ahead else None
        took = (after["at"] - before["at"]) / 1e9
        counts = _counted(before)
        rates = {
            name: (count - counts[name]) / took if after["is_told"] or name in OF_PYTHON else None
            for name, count in _counted(after).items()
        }
        return Load(
            workers=workers,
            known=after["members"],
            converged=(answer["at"] - last) / 1e9 if answer["is_there"] else None,
            cores={name: total / took for name, total in (used | {"Redis": redis}).items()},
            memory={PYTHON: _resident(after["pid"]), SIDECAR: _resident(after["sidecar"])},
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
    rounds = round((SEEN_SECONDS + INTERVAL + seconds) / INTERVAL) + SPARE_ROUNDS
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
        RECEIVED: status["bytes"]["in"] / 1024,
        SENT: status["bytes"]["out"] / 1024,
        ACCEPTED: by_outcome["accepted"],
        CHECKED_IN_SIDECAR: counts["verified"],
        CHECKED_IN_PYTHON: by_outcome.total() - sum(by_outcome[name] for name in _UNCHECKED),
        "copies dropped, sidecar": counts["duplicate"] + counts["old"],
        DROPPED_IN_PYTHON: by_outcome["duplicate"],
        "announcements told on": counts["sent"],
        "refused or limited": counts["limited"] + sum(counts["refused"].values()),
    }


def _seconds(usage: dict[str, Any]) -> dict[str, float]:
    return processor_seconds({usage["pid"]: PYTHON, usage["sidecar"]: SIDECAR})


def _resident(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text("utf-8")
    return int(text.split("VmRSS:")[1].split()[0]) * 1024 / _MIB
