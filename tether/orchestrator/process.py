"""One orchestrator process: runs all loops until it is told to stop."""

from __future__ import annotations

import signal
import sys
from types import FrameType

from tether.broker.redis.severing import sever_connections
from tether.config.settings import Settings
from tether.core.control_plane import ControlPlane
from tether.orchestrator.orchestrator import Orchestrator
from tether.processes.child import announce_ready, follow_parent
from tether.processes.child_program import run_program
from tether.processes.stop_request import StopRequest
from tether.processes.stopping import ORCHESTRATOR_STOP_SECONDS, WIND_UP_SECONDS, StopDeadline, StopWatch
from tether.telemetry.logs import get_logger


def run_orchestrator(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT, or until the supervisor dies. It must be called from the main thread.

    Raises:
      StoreError: The database cannot be used.
    """
    log = get_logger("tether.orchestrator")
    asked_to_stop = StopRequest()
    deadline = StopDeadline()

    def stop() -> None:
        deadline.begin(ORCHESTRATOR_STOP_SECONDS)
        asked_to_stop.set()

    def hurry() -> None:
        stop()
        deadline.shorten(WIND_UP_SECONDS)

    def on_signal(number: int, _: FrameType | None) -> None:
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    follow_parent(on_death=stop, on_hurry=hurry)
    with (
        StopWatch(deadline, sever=sever_connections),
        ControlPlane(settings, in_swarm=True) as plane,
        Orchestrator(plane, deadline=deadline) as orchestrator,
    ):
        announce_ready()
        log.info("Orchestrating.", database=plane.store.place, holder=orchestrator.holder)
        asked_to_stop.wait()
        log.info("Stopping.")
    return 0


def main() -> int:
    """Run the orchestrator that the environment and ``tether.toml`` describe."""
    return run_program("orchestrator", run_orchestrator)


if __name__ == "__main__":
    sys.exit(main())
