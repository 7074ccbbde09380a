"""What changed of the workers between two looks at the fleet: pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from tether.discovery.fleet.fleet import Fleet, Member
from tether.discovery.fleet.shown_states import ShownState, shown_state
from tether.ids import WorkerId


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
