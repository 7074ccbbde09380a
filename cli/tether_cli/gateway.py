"""`tether gateway`: the door over HTTP, in a supervised process."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from ipaddress import ip_address

import click

from tether.config.loading import load_settings
from tether.errors import ServerMissing
from tether.gateway.server.listening import listen
from tether.processes.child import SOCKET_VARIABLE
from tether.processes.children import Child
from tether.processes.restarts import RestartPolicy
from tether.processes.stopping import GRACE_SECONDS, gateway_stop_seconds
from tether.processes.supervisor import Supervisor
from tether.telemetry.logs import configure_logs, get_logger


@click.command()
@click.option("--host", help="Address to listen on.  [default: gateway.host]")
@click.option(
    "--port", type=click.IntRange(0, 65_535), help="Port; 0 picks a free one.  [default: gateway.port]"
)
def gateway(host: str | None, port: int | None) -> None:
    """Serve jobs over HTTP.

    Settings are read from tether.toml and TETHER_* variables. Clients need an API key: `tether keys create`
    makes one. A process that exits for any reason is restarted, and no connection is refused meanwhile.
    SIGTERM or Ctrl-C shuts down gracefully: open streams end with an event that tells clients to reconnect.
    SIGHUP replaces the process: the new one is started first, and no request is refused.
    """
    if not all(find_spec(name) for name in ("fastapi", "uvicorn")):
        raise ServerMissing(
            "the gateway needs packages that are not installed: pip install 'tether[gateway]'"
        )
    settings = load_settings(environ=os.environ, file=None)
    configure_logs(form=settings.logs.form, level=settings.logs.level, process="supervisor")
    listening = listen(host or settings.gateway.host, settings.gateway.port if port is None else port)
    log = get_logger("tether.gateway")
    address, bound = listening.getsockname()[:2]
    if not ip_address(address).is_loopback:
        log.warning(
            "Listening beyond this machine without TLS. Put a TLS proxy in front of it.", host=address
        )
    log.info("Listening.", url=f"http://{f'[{address}]' if ':' in address else address}:{bound}")
    listening.set_inheritable(True)
    supervisor = Supervisor(
        [
            Child(
                "gateway-1",
                (sys.executable, "-m", "tether.gateway.process"),
                descriptors=(listening.fileno(),),
                overlaps=True,
            )
        ],
        policy=RestartPolicy(),
        stop_limit=gateway_stop_seconds(settings.gateway.drain_timeout / 1000) + GRACE_SECONDS,
        environ={**os.environ, SOCKET_VARIABLE: str(listening.fileno())},
        # Else connections would be taken that nobody serves.
        on_stop=listening.close,
    )
    with listening:
        sys.exit(supervisor.run())
