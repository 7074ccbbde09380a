"""A fleet of which a part is killed and replaced all the time: is anybody missing, is anybody kept?"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from presence_stage import PresenceStage, Talker

PROCESSES = 5
"""Of members: one of them is a fifth of the workers."""

KILL_EVERY = 3
"""Of so many rounds one kills a whole process; the others have workers fall silent."""

ENDED_SECONDS = 3.0
SWARM, REDIS = "orchestrator", "reader of Redis"


@dataclass(frozen=True)
class Plan:
    """How much churn; times in seconds."""

    workers: int
    seconds: float
    every: float
    interval: float
    expiry: float

    @property
    def rounds(self) -> int:
        return int(self.seconds / self.every)

    @property
    def replaced(self) -> int:
        """Workers in each round."""
        return self.workers // PROCESSES


@dataclass(frozen=True)
class Life:
    """A worker's time, in nanoseconds: its first and last announcement, and its death; None is none."""

    pool: str
    first: int
    last: int
    died: int | None


@dataclass
class Found:
    """Milliseconds of each life: the longest that a live worker was missing, and how long a dead one was kept
    after its last announcement."""

    missing: dict[str, list[float]] = field(default_factory=dict)
    kept: dict[str, list[float]] = field(default_factory=dict)
    lives: int = 0
    killed: int = 0


def longest_missing(life: Life, changes: Sequence[tuple[int, bool]], until: int) -> int:
    """The longest time for which a worker was not routable while it lived: pure.

    Args:
      changes: When it came or went, in order.
      until: When looking ended.
    """
    end = until if life.died is None else life.died
    known = [(at, is_there) for at, is_there in changes if at < end]
    moments = [(life.first, False), *known, (end, True)]
    return max((later - earlier for (earlier, is_there), (later, _) in pairwise(moments) if not is_there))


def kept_after(life: Life, changes: Sequence[tuple[int, bool]], until: int) -> int:
    """For how long after its last announcement a dead worker was routable: pure."""
    if not changes:
        return 0
    at, is_there = changes[-1]
    return max((until if is_there else at) - life.last, 0)


def measure(plan: Plan, source: random.Random) -> Found:
    """Kill and replace a fifth of the workers in each round."""
    workers = plan.workers + plan.rounds * plan.replaced
    with PresenceStage(workers, models=workers, interval=plan.interval, expiry=plan.expiry) as stage:
        stage.open_database()
        watchers = {
            SWARM: stage.watcher("orchestrator", in_swarm=True, tells_pools=True),
            REDIS: stage.watcher("reader", in_swarm=False, tells_pools=True),
        }
        for watcher in watchers.values():
            watcher.answer()
        fleet = _Fleet(stage, plan)
        time.sleep(plan.interval)
        begun = time.monotonic()
        for turn in range(plan.rounds):
            time.sleep(max(begun + turn * plan.every - time.monotonic(), 0))
            fleet.replace_process(source) if turn % KILL_EVERY == KILL_EVERY - 1 else fleet.replace(source)
        time.sleep(max(begun + plan.seconds - time.monotonic(), 0))
        until = time.monotonic_ns()
        time.sleep(plan.expiry + ENDED_SECONDS)
        ended = time.monotonic_ns()
        lives = list(fleet.lives())
        found = Found(lives=len(lives), killed=len(fleet.died))
        for name, watcher in watchers.items():
            for life in lives:
                changes = watcher.changes.get(life.pool, [])
                # Who came last may still be on its way when looking ends.
                if life.died is not None or until - life.first > plan.interval * 1e9:
                    missing = longest_missing(life, changes, until)
                    found.missing.setdefault(name, []).append(missing / 1e6)
                if life.died is not None:
                    found.kept.setdefault(name, []).append(kept_after(life, changes, ended) / 1e6)
        return found


class _Fleet:
    """Workers in processes: who lives where, and who died when."""

    def __init__(self, stage: PresenceStage, plan: Plan) -> None:
        self._stage = stage
        self._plan = plan
        self._next = 0
        self.died: dict[int, int] = {}
        # By the number of its transport, the first worker that it had.
        self._members: dict[int, tuple[Talker, list[int]]] = {}
        started = [self._start() for _ in range(PROCESSES)]
        for member, numbers in started:
            self._join(member, numbers)

    def _take(self, count: int) -> list[int]:
        self._next += count
        return list(range(self._next - count, self._next))

    def _start(self) -> tuple[Talker, list[int]]:
        numbers = self._take(self._plan.replaced)
        return self._stage.member(f"member{numbers[0]}"), numbers

    def _join(self, member: Talker, numbers: list[int]) -> None:
        member.answer()
        member.ask("join", numbers=numbers)
        self._members[numbers[0]] = (member, numbers)

    def replace(self, source: random.Random) -> None:
        """Some workers of all processes fall silent, others begin in their places."""
        everybody = [(unit, number) for unit, (_, numbers) in self._members.items() for number in numbers]
        chosen = source.sample(everybody, self._plan.replaced)
        for unit, (member, numbers) in self._members.items():
            dead = [number for of, number in chosen if of == unit]
            member.ask("silence", unit=unit, numbers=dead)
            self.died |= dict.fromkeys(dead, time.monotonic_ns())
            new = self._take(len(dead))
            member.ask("add", unit=unit, numbers=new, spread=False)
            numbers[:] = [number for number in numbers if number not in dead] + new

    def replace_process(self, source: random.Random) -> None:
        """A process is killed with all its workers, another one begins."""
        unit = source.choice(list(self._members))
        member, numbers = self._members.pop(unit)
        self._stage.kill(member)
        self.died |= dict.fromkeys(numbers, time.monotonic_ns())
        # As many as before, whatever chance had made of it.
        fresh = self._take(len(numbers))
        self._join(self._stage.member(f"member{fresh[0]}"), fresh)

    def lives(self) -> Iterator[Life]:
        for number in range(self._next):
            first, last = self._stage.times.of(number)
            if first:
                yield Life(self._stage.pool_of(number), first, last, self.died.get(number))
