"""A process that knows the fleet, as an orchestrator in the swarm does or a reader of what that mirrors.

    presence_watcher.py swarm|redis watch|count

It is what every such process of Tether has, and nothing else. With ``watch`` it says at once which pools come
and go. It reads requests in JSON, one a line, and answers each: see :class:`Process`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any

import presence_common as common

from tether.core.control_plane import ControlPlane
from tether.telemetry.logs import configure_logs
from tether.telemetry.metrics import PRESENCE_ANNOUNCEMENTS

LOOK_SECONDS = 0.01
"""Lives end without anybody telling."""

STATUS_SECONDS = 5.0


class Process:
    """Its methods are the requests."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def wait(self, members: int, seconds: float) -> dict[str, object]:
        """Wait for so many workers. Answers when they were there."""
        is_there = self._plane.fleet.wait_for(lambda fleet: len(fleet.members) >= members, seconds)
        return {"at": time.monotonic_ns(), "is_there": is_there}

    def usage(self) -> dict[str, object]:
        """What it knows and has counted, just when the sidecar told its own. Where nobody reads what it
        says, it does not tell."""
        swarm = self._plane.swarm
        assert swarm is not None
        former = swarm.transport.status
        is_told = swarm.transport.wait_for_status(lambda status: status is not former, STATUS_SECONDS)
        return {
            "is_told": is_told,
            "at": time.monotonic_ns(),
            "members": len(self._plane.fleet.fleet.members),
            "pid": os.getpid(),
            "sidecar": swarm.transport.pid,
            "status": swarm.transport.status,
            "outcomes": {
                "/".join((reading.labels["source"], reading.labels["outcome"])): reading.value
                for reading in PRESENCE_ANNOUNCEMENTS.readings()
            },
        }


def watch(plane: ControlPlane) -> None:
    """Say when pools come and go, for ever."""
    changed = threading.Event()
    plane.fleet.on_change(lambda fleet: changed.set())
    known: frozenset[str] = frozenset()
    while True:
        changed.wait(LOOK_SECONDS)
        changed.clear()
        there = frozenset(view.name for view in plane.fleet.pools())
        if there != known:
            now = time.monotonic_ns()
            common.say(at=now, came=sorted(there - known), went=sorted(known - there))
            known = there


def main(where: str, what: str) -> None:
    configure_logs(form="json")
    with ControlPlane(common.settings(), in_swarm=where == "swarm") as plane:
        if what == "watch":
            threading.Thread(target=watch, args=(plane,), name="bench-watch", daemon=True).start()
        process = Process(plane)
        common.say(reply={})
        for line in sys.stdin:
            request: dict[str, Any] = json.loads(line)
            common.say(reply=getattr(process, request.pop("do"))(**request))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
