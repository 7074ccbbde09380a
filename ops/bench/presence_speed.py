"""How soon others know: a worker that joins, says goodbye, falls silent, or loses an attempt."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from presence_stage import PresenceStage, Talker

SEEN_SECONDS = 30.0
PAUSES = (0.05, 0.3)
"""The shortest and the longest between two events, in seconds: they shall fall on no particular moment."""

SWARM, REDIS = "orchestrator", "reader of Redis"


@dataclass
class Speeds:
    """Milliseconds, by who knew; silences are from the last announcement, and what is wrong with them."""

    from_ready: dict[str, list[float]] = field(default_factory=dict)
    from_start: dict[str, list[float]] = field(default_factory=dict)
    goodbyes: dict[str, list[float]] = field(default_factory=dict)
    silences: dict[str, list[float]] = field(default_factory=dict)


def measure(processes: int, each: int, meanwhile: Callable[[], None], source: random.Random) -> Speeds:
    """Workers join one after the other, every one with a sidecar of its own, ``each`` in so many processes.
    The workers of a process say goodbye before those of the next come; the last process is killed.

    Args:
      meanwhile: Done while the killed ones' lives run out.
    """
    found = Speeds()
    workers = processes * each
    with PresenceStage(workers, models=workers) as stage:
        stage.open_database()
        watchers = {
            SWARM: stage.watcher("orchestrator", in_swarm=True, tells_pools=True),
            REDIS: stage.watcher("reader", in_swarm=False, tells_pools=True),
        }
        for watcher in watchers.values():
            watcher.answer()
        members = [stage.member(f"member{number}") for number in range(processes)]
        for member in members:
            member.answer()
        for number in range(workers):
            time.sleep(source.uniform(*PAUSES))
            answer = members[number // each].ask("join", numbers=[number])
            seen = _when(watchers, stage.pool_of(number), True)
            _add(found.from_ready, seen, answer["ready"])
            _add(found.from_start, seen, answer["started"])
            if (number + 1) % each == 0:
                _end(found, stage, watchers, members, range(number + 1 - each, number + 1), source)
        meanwhile()
        for number in range(workers - each, workers):
            last = stage.times.of(number)[1]
            _add(found.silences, _when(watchers, stage.pool_of(number), False), last)
    return found


def _end(
    found: Speeds,
    stage: PresenceStage,
    watchers: dict[str, Talker],
    members: list[Talker],
    numbers: range,
    source: random.Random,
) -> None:
    """The workers of one process go: those of the last one without a goodbye."""
    member = members[numbers[0] // len(numbers)]
    if member is members[-1]:
        stage.kill(member)
        return
    for number in numbers:
        time.sleep(source.uniform(*PAUSES))
        began = member.ask("leave", unit=number)["began"]
        _add(found.goodbyes, _when(watchers, stage.pool_of(number), False), began)


def _when(watchers: dict[str, Talker], pool: str, is_there: bool) -> dict[str, int]:
    return {name: watcher.when(pool, is_there, SEEN_SECONDS) for name, watcher in watchers.items()}


def _add(samples: dict[str, list[float]], seen: dict[str, int], since: int) -> None:
    for name, at in seen.items():
        samples.setdefault(name, []).append((at - since) / 1e6)
