"""One gateway process: serves until it is told to stop."""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import FrameType

from tether.broker.redis.severing import sever_connections
from tether.config.settings import Settings
from tether.core.control_plane import ControlPlane
from tether.gateway.server.listening import listen
from tether.gateway.server.server import GatewayServer
from tether.processes.child import LIFELINE_VARIABLE, SOCKET_VARIABLE, announce_ready, follow_parent
from tether.processes.child_program import run_program
from tether.processes.stopping import HURRY_SECONDS, StopDeadline, StopWatch, gateway_stop_seconds
from tether.telemetry.logs import get_logger

SWITCH_SECONDS = 0.0005


def run_gateway(
    settings: Settings,
    *,
    deadline: StopDeadline | None = None,
    on_ready: Callable[[], None] = announce_ready,
    beside: Callable[[ControlPlane], AbstractContextManager[object]] = nullcontext,
    in_swarm: bool = False,
) -> int:
    """Run until SIGTERM or SIGINT, or until the supervisor dies. It must be called from the main thread.

    It listens at the socket that it inherited, where there is one, else at that of the settings.

    Args:
      deadline: That of the stop, for whoever shares it; begun when the process is told to stop.
      on_ready: Called once requests are served.
      beside, in_swarm: See :class:`~tether.gateway.services.GatewayServices`.

    Raises:
      TetherError: It cannot serve as configured.
    """
    inherited = os.environ.pop(SOCKET_VARIABLE, None)
    listening = (
        listen(settings.gateway.host, settings.gateway.port)
        if inherited is None
        else socket.socket(fileno=int(inherited))
    )
    log = get_logger("tether.gateway")
    raise_limits()

    def be_ready() -> None:
        leave_program_uncollected()
        on_ready()

    stop_deadline = deadline or StopDeadline()
    server = GatewayServer(
        settings, listening, on_ready=be_ready, beside=beside, in_swarm=in_swarm, deadline=stop_deadline
    )

    stop_seconds = gateway_stop_seconds(settings.gateway.drain_timeout / 1000)

    def stop() -> None:
        stop_deadline.begin(stop_seconds)
        server.stop()

    def retire() -> None:
        stop_deadline.begin(stop_seconds)
        server.stop(is_replaced=True)

    def hurry() -> None:
        stop_deadline.begin(HURRY_SECONDS)
        stop_deadline.shorten(HURRY_SECONDS)
        server.hurry()

    is_supervised = LIFELINE_VARIABLE in os.environ

    def on_signal(number: int, _: FrameType | None) -> None:
        # Service managers may signal the whole group beside the supervisor, which says when to hurry.
        if stop_deadline.has_begun and not is_supervised:
            hurry()
        else:
            stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    follow_parent(on_death=stop, on_retire=retire, on_hurry=hurry)
    host, port = listening.getsockname()[:2]
    log.info("Serving.", host=host, port=port)
    with StopWatch(stop_deadline, sever=sever_connections):
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


def leave_program_uncollected() -> None:
    """Have the collector of cycles pass over all that is there now: modules, classes, what the program is.

    It keeps every thread waiting while it looks at these 120,000 objects, which takes 115 ms, and does so
    whenever there are a quarter as many new ones, which one large request may make.
    """
    gc.collect()
    gc.freeze()


def main() -> int:
    """Run the gateway that the environment and ``tether.toml`` describe."""
    return run_program("gateway", run_gateway)


if __name__ == "__main__":
    sys.exit(main())
