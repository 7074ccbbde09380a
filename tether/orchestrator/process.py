"""One orchestrator process: runs all loops until it is told to stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

from tether.config import Settings
from tether.config_loading import load_settings
from tether.control import ControlPlane
from tether.embedded.child import NAME_VARIABLE, announce_ready, follow_parent
from tether.errors import TetherError
from tether.orchestrator.orchestrator import Orchestrator
from tether.telemetry.logs import configure_logs, get_logger


def run_orchestrator(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT, or until the supervisor dies. It must be called from the main thread.

    Raises:
      StoreError: The database cannot be used.
    """
    log = get_logger("tether.orchestrator")
    asked_to_stop = threading.Event()

    def on_signal(number: int, _: FrameType | None) -> None:
        asked_to_stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    follow_parent(on_death=asked_to_stop.set)
    with ControlPlane(settings) as plane, Orchestrator(plane):
        announce_ready()
        log.info("Orchestrating.", database=plane.store.place)
        asked_to_stop.wait()
        log.info("Stopping.")
    return 0


def main() -> int:
    """Run the orchestrator that the environment and ``tether.toml`` describe."""
    try:
        settings = load_settings(environ=os.environ)
        name = os.environ.get(NAME_VARIABLE, "orchestrator")
        configure_logs(form=settings.logs.form, level=settings.logs.level, process=name)
        return run_orchestrator(settings)
    except TetherError as error:
        get_logger("tether.orchestrator").error(str(error), code=error.code)
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
