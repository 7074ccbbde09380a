"""One process that keeps a private Redis server at a Unix socket: ``redis_process FOLDER SOCKET``.

It and its server live and die together: the kernel kills the server when this process is gone, and this one
ends when the server does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from tether.config.settings import Settings
from tether.errors import ServerStartFailed
from tether.local.redis_server import RedisServer
from tether.processes import die_with_parent
from tether.processes.child import announce_ready, follow_parent
from tether.processes.child_program import run_program
from tether.processes.stop_request import StopRequest
from tether.telemetry.logs import get_logger

SERVER_LOST = 1
"""Exit status where the server ended by itself."""

REDIS_STOP_SECONDS = 4.0
"""What the server gets to end: it has written all that it answered for, and may hang."""

LOCK = "server.lock"
"""The file in the server's folder that is locked for as long as a server uses that."""


class _AskedToStop(BaseException):
    """A signal came while nothing was started yet."""


def run_redis(folder: Path, socket: Path) -> int:
    """Run until SIGTERM or SIGINT, until the supervisor dies, or until the server ends.

    It must be called from the main thread.

    Args:
      folder: Where the server's data is.
      socket: Where it listens.

    Raises:
      ServerMissing: There is no Redis server on this machine.
      ServerStartFailed: It cannot use its data.
    """
    log = get_logger("tether.redis")
    over = StopRequest()
    is_asked_to_stop = False

    def on_signal(number: int, _: FrameType | None) -> None:
        nonlocal is_asked_to_stop
        is_asked_to_stop = True
        over.set()

    def on_early_signal(number: int, _: FrameType | None) -> None:
        raise _AskedToStop

    def on_death() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, on_early_signal)
        follow_parent(on_death)
        os.umask(0o077)
        lock = _lock(folder)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, on_signal)
    except _AskedToStop:
        return 0
    launcher = (sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid()))
    server = RedisServer(
        folder=folder,
        socket_path=socket,
        launcher=launcher,
        kept_open=(lock,),
        on_line=_pass_on,
        on_end=over.set,
    )
    try:
        server.start()
        socket.chmod(0o700)
        announce_ready()
        log.info("Serving.", socket=str(socket))
        over.wait()
    except ServerStartFailed:
        if is_asked_to_stop:
            return 0
        raise
    finally:
        server.stop(REDIS_STOP_SECONDS)
        socket.unlink(missing_ok=True)
        os.close(lock)
    if is_asked_to_stop:
        log.info("Stopped.")
        return 0
    log.error("The Redis server has exited.")
    return SERVER_LOST


def _pass_on(line: str) -> None:
    # A full disk must not end the thread that reads: the server would wait for it.
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def _lock(folder: Path) -> int:
    """Wait until no other server uses the folder. The server inherits the lock, and holds it."""
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def main() -> int:
    """Run the server that the command line names."""

    def run(settings: Settings) -> int:
        folder, socket = map(Path, sys.argv[1:])
        return run_redis(folder, socket)

    return run_program("redis", run)


if __name__ == "__main__":
    sys.exit(main())
