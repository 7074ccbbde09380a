"""Deaths of worker processes: what is known of each by a job that ran in it, and how that is told."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from tether.codec import value_from_json
from tether.ids import NO_WORKER, BootId

ENDED = "ended"
"""How a process ended that was told to, or that had nothing left to do: no job is the cause."""

HOST = "host"
"""How a process ended whose machine vanished or was started again: no job is the cause."""

OUT_OF_MEMORY = "oom"
"""How a process ended that the kernel killed since there was no memory left."""

MEMORY_ERROR = "memory"
"""How a process ended that was refused memory."""

UNKNOWN = "unknown"
"""How a process ended of which only that is known: its successor says so."""

_HOW = re.compile(r"[a-z]+(?: \d{1,3})?")


def is_blamed(how: str) -> bool:
    """Whether a job may be the cause of an end."""
    return how not in (ENDED, HOST)


def tells_little(how: str) -> bool:
    """Whether a job is hardly ever the cause of an end, though it may be: SIGKILL that the kernel did not
    send for want of memory, and what nobody saw, are the deeds of whoever runs the machine."""
    return how in (f"signal {signal.SIGKILL.value}", UNKNOWN)


@dataclass(frozen=True, kw_only=True)
class Death:
    """One death of a process that ran a job.

    Attributes:
      boot: The process's boot id.
      how: ``signal <number>``, ``exit <status>``, ``oom``, ``memory`` or ``unknown``.
      at: When, in milliseconds since the epoch by Redis's clock.
      ran: For how many milliseconds the job had run in it.
      beside: How many other jobs ran in it.
      group: Of those that were suspected together before, and ran together for that; may be empty.
      alone: Whether it ran under suspicion, with nothing beside its group.
    """

    boot: BootId = NO_WORKER
    how: str = UNKNOWN
    at: int = 0
    ran: int = 0
    beside: int = 0
    group: str = ""
    alone: bool = False


def deaths_from_text(text: bytes | str) -> tuple[Death, ...]:
    """The deaths that Redis tells of, in their order; those that cannot be read are left out."""
    try:
        return _readable_deaths(json.loads(text) if text else [])
    except (ValueError, RecursionError):
        return ()


def evidence_of_deaths(deaths: Sequence[Death], count: int) -> dict[str, Any]:
    """What a dead letter keeps of the deaths of processes that ran its job; empty where there was none.

    Args:
      deaths: Those that are known, in their order.
      count: How many there were.

    Returns:
      ``count``, and ``deaths`` with the fields of :class:`Death` of each. No other job is named.
    """
    return {"count": count, "deaths": [asdict(death) for death in deaths]} if deaths or count else {}


def deaths_of_evidence(evidence: Mapping[str, Any]) -> tuple[Death, ...]:
    """The deaths that a dead letter tells of; those that cannot be read are left out."""
    return _readable_deaths(evidence.get("deaths"))


def _readable_deaths(found: object) -> tuple[Death, ...]:
    deaths = []
    for each in found if isinstance(found, list) else []:
        with suppress(ValueError, TypeError):
            deaths.append(value_from_json(Death, each))
    return tuple(deaths)


def how_in_words(how: str) -> str:
    """The end of a process as a person would tell it."""
    if not _HOW.fullmatch(how):
        return "ended in an unknown way"
    kind, _, number = how.partition(" ")
    match kind:
        case "signal":
            with suppress(ValueError):
                return f"was killed by {signal.Signals(int(number)).name}"
            return f"was killed by signal {number}"
        case "exit":
            return f"ended with exit status {number}"
        case "oom":
            return "was killed by the kernel, out of memory"
        case "memory":
            return "ended with a MemoryError"
        case _:
            return "ended in an unknown way"


def death_of_attempt(evidence: Mapping[str, Any]) -> Death | None:
    """The death that the evidence of an attempt tells of; None where that is none."""
    return next(iter(_readable_deaths([evidence] if "how" in evidence else [])), None)


def end_in_words(death: Death) -> str:
    """How a process died, after how long, beside what, and whether in a trial of suspects."""
    beside = "alone" if death.beside == 0 else f"beside {death.beside} other{'s' * (death.beside > 1)}"
    trial = ", in a trial" if death.alone else ""
    return f"{how_in_words(death.how)} {death.ran / 1000:.1f} s after it began, {beside}{trial}"


def death_in_words(death: Death) -> str:
    """One death: which process, and how."""
    return f"{death.boot} {end_in_words(death)}"


def deaths_in_words(deaths: Sequence[Death], count: int) -> str:
    """Why a job is held to end its workers' processes.

    Args:
      deaths: Those that are known, in their order.
      count: How many there were.
    """
    times = "once" if count == 1 else f"{count} times"
    told = "; ".join(death_in_words(death) for death in deaths)
    head = f"the process that ran it died {times}"
    alone = sum(death.beside == 0 for death in deaths)
    if alone:
        head += f", {alone} of these while it ran alone"
    return f"{head}: {told}" if told else head
