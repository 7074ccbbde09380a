"""`tether gateway`: the door over HTTP, in a supervised process."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from ipaddress import ip_address

import click

from tether.config_loading import load_settings
from tether.embedded.child import SOCKET_VARIABLE
from tether.embedded.restarts import RestartPolicy
from tether.embedded.supervisor import Child, Supervisor
from tether.errors import ServerMissing
from tether.gateway.listening import listen
from tether.telemetry.logs import configure_logs, get_logger

STOP_GRACE_SECONDS = 30.0
"""What the process gets to stop, beyond the time in which requests may end: a database may hang for long."""


@click.command()
@click.option("--host", help="Address to listen at.  [default: gateway.host]")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port; 0 is any.  [default: gateway.port]")
def gateway(host: str | None, port: int | None) -> None:
    """Serve jobs over HTTP.

    It takes its settings from tether.toml and TETHER_* variables. Clients need an API key: `tether keys
    create` makes one. A process that ends, however it ends, is started again, and nobody is turned away
    meanwhile. SIGTERM or Ctrl-C stops in order: streams end with a word about coming back. SIGHUP puts a new
    process in the place of the old one: requests that come meanwhile wait for it, for as long as those that
    are under way take to end.
    """
    if not all(find_spec(name) for name in ("fastapi", "uvicorn")):
        raise ServerMissing("the gateway needs packages that are not here: pip install 'tether[gateway]'")
    settings = load_settings(environ=os.environ, file=None)
    configure_logs(form=settings.logs.form, level=settings.logs.level, process="supervisor")
    listening = listen(host or settings.gateway.host, settings.gateway.port if port is None else port)
    log = get_logger("tether.gateway")
    address, bound = listening.getsockname()[:2]
    if not ip_address(address).is_loopback:
        log.warning(
            "Listening beyond this machine without TLS. Put a proxy with TLS before it.", host=address
        )
    log.info("Listening.", url=f"http://{f'[{address}]' if ':' in address else address}:{bound}")
    listening.set_inheritable(True)
    supervisor = Supervisor(
        [
            Child(
                "gateway-1",
                (sys.executable, "-m", "tether.gateway.process"),
                descriptors=(listening.fileno(),),
            )
        ],
        policy=RestartPolicy(),
        stop_limit=settings.gateway.drain_timeout / 1000 + STOP_GRACE_SECONDS,
        environ={**os.environ, SOCKET_VARIABLE: str(listening.fileno())},
    )
    with listening:
        sys.exit(supervisor.run())
