"""What a worker of the fleet does, in one word, and what changed between two looks at the fleet: pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from tether.discovery.announcements.presence import ModelState, WorkerState
from tether.discovery.fleet.fleet import Fleet, Member, is_suspect, silent_in
from tether.ids import WorkerId


class ShownState(StrEnum):
    """Whether a worker is given jobs, and why not. One that is cold has loaded no model: it loads one where
    jobs wait and no worker that has loaded it is free."""

    SERVING = "serving"
    COLD = "cold"
    SUSPECT = "suspect"
    SILENT = "silent"
    DISCONNECTED = "disconnected"
    CORDONED = "cordoned"
    DRAINING = "draining"
    UNROUTABLE = "unroutable"


NOT_DRAWING = frozenset({ShownState.SILENT, ShownState.DISCONNECTED})
"""States of workers that announce themselves and draw no jobs."""


class ChangeKind(StrEnum):
    """What happened to a worker."""

    PRESENT = "present"
    JOINED = "joined"
    RESTARTED = "restarted"
    STATE = "state"
    LEFT = "left"


class Seen(NamedTuple):
    """A worker at one look."""

    member: Member
    state: ShownState


Look: TypeAlias = Mapping[WorkerId, Seen]
"""Those that live, by worker id."""


@dataclass(frozen=True)
class Change:
    """A change of a worker between two snapshots of the fleet.

    Attributes:
      member: The worker now; if it left, as it was.
      state: Its state, likewise.
      former: Its former state, if that differs.
      said_goodbye: Whether a worker that left said goodbye, and did not just expire.
    """

    kind: ChangeKind
    member: Member
    state: ShownState
    former: ShownState | None = None
    said_goodbye: bool = False


def shown_state(fleet: Fleet, member: Member, now: int) -> ShownState:
    """What keeps jobs from a worker most lastingly; that it serves, where nothing does."""
    if member.presence.worker_id in fleet.unroutable:
        return ShownState.UNROUTABLE
    if member.presence.state is WorkerState.DISCONNECTED:
        return ShownState.DISCONNECTED
    if member.presence.state is WorkerState.CORDONED:
        return ShownState.CORDONED
    if member.presence.state is not WorkerState.SERVING:
        return ShownState.DRAINING
    silent = silent_in(member, fleet.silent)
    if member.serves and all(pool in silent for pool, _ in member.serves):
        return ShownState.SILENT
    if is_suspect(fleet, member, now):
        return ShownState.SUSPECT
    models = member.presence.supported
    if models and not any(model.state is ModelState.WARM for model in models):
        return ShownState.COLD
    return ShownState.SERVING


def look_at(fleet: Fleet, now: int) -> Look:
    """Those that live at that time, each with its state."""
    return {
        worker: Seen(member, shown_state(fleet, member, now))
        for worker, member in fleet.members.items()
        if member.expires_at > now
    }


def first_look(after: Look) -> list[Change]:
    """Everybody who is there, by worker id."""
    return [Change(ChangeKind.PRESENT, *after[worker]) for worker in sorted(after)]


def changes(before: Look, after: Look, now: int) -> list[Change]:
    """Return the changes between two snapshots, by worker id.

    Args:
      now: The time of the second snapshot.
    """
    changed = []
    for worker in sorted(before.keys() | after.keys()):
        former, seen = before.get(worker), after.get(worker)
        if seen is None:
            assert former is not None
            said_goodbye = former.member.expires_at > now
            changed.append(Change(ChangeKind.LEFT, *former, said_goodbye=said_goodbye))
        elif former is None:
            changed.append(Change(ChangeKind.JOINED, *seen))
        elif seen.member.presence.boot_counter != former.member.presence.boot_counter:
            changed.append(Change(ChangeKind.RESTARTED, *seen))
        elif seen.state is not former.state:
            changed.append(Change(ChangeKind.STATE, *seen, former=former.state))
    return changed
