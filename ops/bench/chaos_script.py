"""The script of a chaos run: which faults strike, when, whom and for how long. Pure: a seed makes it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

Struck = TypeVar("Struck")


class FaultType(StrEnum):
    """Kinds of faults. Who is *killed* gets SIGKILL, who is *stopped* SIGSTOP and later SIGCONT."""

    WORKER_KILLED = "worker killed"
    """One worker process; its supervisor sees it."""
    WORKER_HOST_KILLED = "worker's host killed"
    """A worker process with its supervisor and all that descends from it."""
    WORKER_HOST_LOST = "worker's host lost"
    """The same, and it never comes back: another one takes its place, of which nobody has heard."""
    WORKER_STOPPED = "worker stopped"
    GATEWAY_KILLED = "gateway killed"
    GATEWAY_STOPPED = "gateway stopped"
    ORCHESTRATOR_KILLED = "orchestrator killed"
    ORCHESTRATOR_STOPPED = "orchestrator stopped"
    SIDECAR_KILLED = "sidecar killed"
    SIDECAR_STOPPED = "sidecar stopped"
    REDIS_KILLED = "Redis killed"
    REDIS_STOPPED = "Redis stopped"
    REDIS_FLUSHED = "Redis flushed"
    REDIS_ROLLED_BACK = "Redis rolled back"
    """Killed, and started with an older copy of its append-only files."""
    REDIS_FULL = "Redis full"
    REDIS_DISK_FULL = "Redis's disk full"
    DATABASE_RESTARTED = "Postgres restarted"
    DATABASE_DISK_FULL = "database's disk full"
    CONNECTIONS_CUT = "connections cut"
    CONNECTIONS_STALLED = "connections stalled"
    CLOCK_AHEAD = "clock set ahead"
    CLOCK_BACK = "clock set back"


DEATHS: Mapping[FaultType, int] = {
    FaultType.WORKER_KILLED: 60,
    FaultType.WORKER_HOST_KILLED: 8,
    FaultType.WORKER_HOST_LOST: 8,
    FaultType.GATEWAY_KILLED: 8,
    FaultType.ORCHESTRATOR_KILLED: 8,
    FaultType.SIDECAR_KILLED: 4,
    FaultType.REDIS_KILLED: 4,
}
"""Faults that are the death of a process, and how many of a hundred are of each kind."""

SECONDS: Mapping[FaultType, tuple[float, float]] = {
    # Longer than a lease, which is 3 s.
    FaultType.WORKER_STOPPED: (4.0, 5.0),
    # Longer than clients wait for a response.
    FaultType.GATEWAY_STOPPED: (4.0, 5.0),
    # Longer than the leases of the loops, which are 3 s.
    FaultType.ORCHESTRATOR_STOPPED: (4.0, 5.0),
    # Longer than an announcement counts, which is 4 s here.
    FaultType.SIDECAR_STOPPED: (5.5, 6.5),
    FaultType.REDIS_KILLED: (0.0, 1.5),
    FaultType.REDIS_STOPPED: (2.0, 4.0),
    FaultType.REDIS_ROLLED_BACK: (2.0, 4.0),
    FaultType.REDIS_FULL: (2.0, 3.0),
    FaultType.REDIS_DISK_FULL: (2.5, 3.5),
    FaultType.DATABASE_RESTARTED: (0.2, 1.0),
    FaultType.DATABASE_DISK_FULL: (2.0, 3.0),
    FaultType.CONNECTIONS_CUT: (0.5, 2.0),
    FaultType.CONNECTIONS_STALLED: (2.0, 4.0),
    FaultType.CLOCK_AHEAD: (2.5, 3.5),
    FaultType.CLOCK_BACK: (2.5, 3.5),
}
"""How long a fault lasts, from and to; one that is not here is over at once."""


@dataclass(frozen=True)
class ScriptedFault:
    """One fault.

    Attributes:
      number: In the order of their times.
      at: When it is due, in seconds from the beginning.
      target: Whom it strikes: a part's or a way's name, or what is left to the moment, ``leading``.
      seconds: How long it lasts.
      track: Faults of one track come one after the other; those of two may overlap.
    """

    number: int
    at: float
    type: FaultType
    target: str
    seconds: float
    track: str


@dataclass(frozen=True)
class ScriptPlan:
    """What is wanted of a script.

    Attributes:
      seconds: How long it is.
      deaths: Processes that are killed.
      others: Faults of other kinds.
      targets: Whom each kind may strike; one that is not here does not happen.
    """

    seconds: float
    deaths: int
    others: int
    targets: Mapping[FaultType, Sequence[str]]


def make_script(seed: int, plan: ScriptPlan) -> list[ScriptedFault]:
    """Return the faults of a run, in the order of their times: equal for equal seeds and plans.

    Every kind with a target happens at least once, and of kinds that are not deaths every target, where there
    are as many faults as that takes.

    Raises:
      ValueError: There are fewer faults than kinds.
    """
    chance = random.Random(seed)
    deadly = [kind for kind in DEATHS if plan.targets.get(kind)]
    deaths = list(deadly)
    deaths += chance.choices(
        deadly, weights=[DEATHS[kind] for kind in deadly], k=max(plan.deaths - len(deaths), 0)
    )
    pairs = [
        (kind, target) for kind in FaultType if kind not in DEATHS for target in plan.targets.get(kind, ())
    ]
    kinds = list(dict.fromkeys(kind for kind, _ in pairs))
    if len(deaths) > plan.deaths or len(kinds) > plan.others:
        raise ValueError(
            f"{plan.deaths} deaths and {plan.others} other faults are too few: there are {len(deadly)} and "
            f"{len(kinds)} kinds"
        )
    others: list[tuple[FaultType, str]] = []
    while len(others) < plan.others:
        # Each kind first, then every target; and all of that again.
        firsts = [(kind, chance.choice(plan.targets[kind])) for kind in kinds]
        chance.shuffle(firsts)
        rest = [pair for pair in pairs if pair not in firsts]
        chance.shuffle(rest)
        others += [*firsts, *rest]
    others = others[: plan.others]
    chance.shuffle(others)
    chance.shuffle(deaths)
    struck = [
        *(
            (at, kind, chance.choice(plan.targets[kind]), "deaths")
            for at, kind in _spread(deaths, plan, chance)
        ),
        *((at, kind, target, "others") for at, (kind, target) in _spread(others, plan, chance)),
    ]
    return [
        ScriptedFault(number, at, kind, target, chance.uniform(*SECONDS.get(kind, (0.0, 0.0))), track)
        for number, (at, kind, target, track) in enumerate(sorted(struck))
    ]


def _spread(faults: Sequence[Struck], plan: ScriptPlan, chance: random.Random) -> list[tuple[float, Struck]]:
    """Each fault with a time of its own part of the run."""
    part = plan.seconds / max(len(faults), 1)
    return [((place + chance.uniform(0.1, 0.9)) * part, fault) for place, fault in enumerate(faults)]
