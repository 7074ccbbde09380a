"""One gateway process: serves until it is told to stop."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import FrameType

from tether.config import Settings
from tether.control import ControlPlane
from tether.embedded.child import SOCKET_VARIABLE, announce_ready, follow_parent
from tether.embedded.child_program import run_program
from tether.gateway.listening import listen
from tether.gateway.server import GatewayServer
from tether.telemetry.logs import get_logger

SWITCH_SECONDS = 0.0005


def run_gateway(
    settings: Settings,
    *,
    on_ready: Callable[[], None] = announce_ready,
    beside: Callable[[ControlPlane], AbstractContextManager[object]] = nullcontext,
    in_swarm: bool = False,
) -> int:
    """Run until SIGTERM or SIGINT, or until the supervisor dies. It must be called from the main thread.

    It listens at the socket that it inherited, where there is one, else at that of the settings.

    Args:
      on_ready: Called once requests are answered.
      beside, in_swarm: See :class:`~tether.gateway.edge.Edge`.

    Raises:
      TetherError: It cannot serve as it is set up.
    """
    inherited = os.environ.pop(SOCKET_VARIABLE, None)
    listening = (
        listen(settings.gateway.host, settings.gateway.port)
        if inherited is None
        else socket.socket(fileno=int(inherited))
    )
    log = get_logger("tether.gateway")
    raise_limits()
    server = GatewayServer(settings, listening, on_ready=on_ready, beside=beside, in_swarm=in_swarm)

    def on_signal(number: int, _: FrameType | None) -> None:
        server.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    follow_parent(on_death=server.stop)
    host, port = listening.getsockname()[:2]
    log.info("Serving.", host=host, port=port)
    server.run()
    return 0


def raise_limits() -> None:
    """Let the process have as many connections as the system lets it, and its threads take turns quickly.

    Python's own interval of 5 ms is what one of them waits for another each time that it has asked the system
    for something. With 500 streams the p99 of a token's delay was 15.6 ms with it, and is 11.7 ms without.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sys.setswitchinterval(SWITCH_SECONDS)


def main() -> int:
    """Run the gateway that the environment and ``tether.toml`` describe."""
    return run_program("gateway", run_gateway)


if __name__ == "__main__":
    sys.exit(main())
