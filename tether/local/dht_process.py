"""The private bootstrap node of a local Tether: ``dht_process HOST PORT PACKAGE_DIR``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from tether.config.settings import Settings
from tether.discovery.swarm.bootstrap import run_bootstrap
from tether.errors import TetherError
from tether.processes.child import announce_ready, follow_parent
from tether.processes.child_program import run_program
from tether.telemetry.logs import get_logger

FAILED = 75
"""Exit status for every failure: the others go on without it, so it is tried again. Source: sysexits(3)."""


def run_dht(host: str, port: int, package_dir: Path) -> int:
    """Run until SIGTERM or SIGINT, or until the supervisor dies. It must be called from the main thread."""
    log = get_logger("tether.dht")

    def on_ready(address: str) -> None:
        log.info("Serving.", address=address)
        announce_ready()

    follow_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))
    try:
        status = run_bootstrap(host, port, package_dir, environ=os.environ, on_ready=on_ready)
    except TetherError as error:
        log.error(str(error), code=error.code)
        status = FAILED
    return FAILED if status else 0


def main() -> int:
    """Run the node that the command line describes."""

    def run(settings: Settings) -> int:
        host, port, package_dir = sys.argv[1:]
        return run_dht(host, int(port), Path(package_dir))

    return run_program("dht", run)


if __name__ == "__main__":
    sys.exit(main())
