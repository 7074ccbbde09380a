"""One bootstrap node as a process: newcomers of a network ask it whom else there is."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType

from tether.discovery.swarm.packages import find_node, install
from tether.errors import AddressInUse, ServerStartFailed

PROGRAM = "bootstrap.js"
START_SECONDS = 30.0
STOP_SECONDS = 3.0
MAX_BYTES = 4_096


class _AskedToStop(BaseException):
    """A signal came."""


def free_udp_port(host: str) -> int:
    """A UDP port that nobody uses there now.

    Raises:
      AddressInUse: This machine has no such address.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        _bind(probe, host, 0)
        port: int = probe.getsockname()[1]
        return port


def run_bootstrap(
    host: str,
    port: int,
    package_dir: Path,
    *,
    environ: Mapping[str, str],
    on_ready: Callable[[str], None],
) -> int:
    """Run a node until SIGTERM or SIGINT, or until it exits, and return the exit status.

    It must be called from the main thread. Other hosts must be able to reach ``host`` as it is given: it is
    passed on to peers. A private network needs one such node, better two; connected peers stay connected
    without it.

    Args:
      host: An IPv4 address of this machine.
      port: UDP; 0 for any.
      on_ready: Told the address, as in ``192.0.2.7:49737``.

    Raises:
      ServerMissing: There is no Node.
      ServerStartFailed: Its packages cannot be installed, or it does not start.
      AddressInUse: Another program has the port, or this machine has no such address.
    """

    def on_signal(number: int, _: FrameType | None) -> None:
        raise _AskedToStop

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    process: subprocess.Popen[bytes] | None = None
    try:
        node = find_node(environ)
        folder = install(package_dir, node, environ)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            _bind(probe, host, port)
        process = subprocess.Popen(
            (*node.node, PROGRAM, host, str(port)),
            cwd=folder,
            env=dict(environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        on_ready(_read_address(process))
        return process.wait()
    except _AskedToStop:
        return 0
    finally:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        if process is not None:
            _end(process)
        for number, handler in before.items():
            signal.signal(number, handler)


def _bind(probe: socket.socket, host: str, port: int) -> None:
    try:
        probe.bind((host, port))
    except OSError as error:
        raise AddressInUse(
            f"UDP port {port} of {host} cannot be used: {error.strerror}; choose another one with --port, or "
            "an address of this machine with --host"
        ) from None


def _read_address(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    line = b""
    deadline = time.monotonic() + START_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            ready = left > 0 and selector.select(left)
            more = os.read(process.stdout.fileno(), MAX_BYTES) if ready else b""
            if not more:
                raise ServerStartFailed("the bootstrap node failed to start; see its output above")
            line += more
    document = json.loads(line)
    return f"{document['host']}:{document['port']}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """The node ends when its standard input does."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
