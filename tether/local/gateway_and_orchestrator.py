"""Gateway and orchestrator in one process, on one database: ``gateway_and_orchestrator API_KEY_FILE``.

With SQLite its writers wait for each other in one queue so, and not, unfairly, for locks on a file. It makes
the API key of the machine's user, too, and enrols the machine's workers in the thread ``tether-enrol-local``.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from tether.clocks import wall_clock_ms
from tether.config.settings import Settings
from tether.core.control_plane import ControlPlane
from tether.errors import ConfigError, DiskFull
from tether.gateway.keys.api_keys import Scope, digest_of, is_key, make_key
from tether.gateway.process import run_gateway
from tether.jobs import DEFAULT_TENANT
from tether.local.enrolment import EnrolLocalKeys
from tether.local.state_folder import write_owner_only
from tether.loops import Loop
from tether.orchestrator.context import core_outage
from tether.orchestrator.orchestrator import Orchestrator
from tether.processes.child import announce_ready
from tether.processes.child_program import run_program
from tether.processes.stopping import CLOSING_SECONDS, StopDeadline
from tether.store.api_keys import add_key, key_by_digest
from tether.store.store import Store
from tether.telemetry.logs import get_logger

KEY_NAME = "tether up"
WRITE_SECONDS = 60.0


class _Countdown:
    """Says that the process is ready once both halves are. Any thread may count."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._lock = threading.Lock()

    def count(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                announce_ready()


def run_gateway_and_orchestrator(settings: Settings, key_file: Path) -> int:
    """Run until SIGTERM or SIGINT, or until the supervisor dies. It must be called from the main thread.

    Args:
      key_file: Where the local API key is kept.

    Raises:
      TetherError: It cannot serve as it is set up.
    """
    halves = _Countdown(2)
    deadline = StopDeadline()

    @contextlib.contextmanager
    def beside(plane: ControlPlane) -> Iterator[None]:
        ensure_local_key(plane.store, key_file)
        enrolling = Loop(
            "enrol-local",
            EnrolLocalKeys(plane.store, settings.presence.identity_dir, now_ms=wall_clock_ms),
            outage=core_outage(get_logger("tether.local"), "enrol-local"),
        )
        with Orchestrator(plane, deadline=deadline):
            enrolling.start()
            try:
                halves.count()
                yield
            finally:
                enrolling.stop(deadline.remaining(but=CLOSING_SECONDS))

    return run_gateway(settings, deadline=deadline, on_ready=halves.count, beside=beside, in_swarm=True)


def ensure_local_key(store: Store, file: Path) -> None:
    """Have the file hold an API key that is good for everything: the one in it, else a new one.

    Raises:
      ConfigError: The file cannot be read or written.
      DiskFull: There is no room for it.
      StoreError: The database cannot be used.
    """
    try:
        held = file.read_text("ascii", "replace").strip() if file.exists() else ""
        known = store.read(key_by_digest, digest_of(held)) if is_key(held) else None
        if known is not None and known.revoked_at is None:
            file.chmod(0o600)
            return
        key, kept = make_key(
            DEFAULT_TENANT,
            tuple(Scope),
            now_ms=wall_clock_ms(),
            randomness=secrets.token_bytes,
            name=KEY_NAME,
        )
        store.write_alone(add_key, kept).result(WRITE_SECONDS)
        write_owner_only(file, key + "\n")
    except OSError as error:
        kind = DiskFull if error.errno == errno.ENOSPC else ConfigError
        raise kind(f"the API key's file {file} cannot be used: {error.strerror}") from error


def main() -> int:
    """Run what the environment and ``tether.toml`` describe."""
    return run_program("gateway", lambda settings: run_gateway_and_orchestrator(settings, Path(sys.argv[1])))


if __name__ == "__main__":
    sys.exit(main())
