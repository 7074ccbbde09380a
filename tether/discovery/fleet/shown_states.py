"""What a worker of the fleet does, in one word, for whoever looks at it: pure."""

from __future__ import annotations

from enum import StrEnum

from tether.discovery.announcements.presence import ModelState, WorkerState
from tether.discovery.fleet.fleet import Fleet, Member, is_suspect, silent_in


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
