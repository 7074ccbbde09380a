"""`tether orchestrator`: the loops between database and Redis, in a supervised process."""

from __future__ import annotations

import os
import sys

import click

from tether.config_loading import load_settings
from tether.embedded.restarts import RestartPolicy
from tether.embedded.supervisor import Child, Supervisor
from tether.telemetry.logs import configure_logs

STOP_SECONDS = 20.0
"""What the loops get to end their steps."""


@click.command()
def orchestrator() -> None:
    """Carry jobs between the database and Redis until they end.

    Without one, jobs are accepted, placed and run, and nothing is settled. Any number may run: each loop is
    held by one of them at a time, and when it dies another goes on within seconds.

    It takes its settings from tether.toml and TETHER_* variables. A process that ends, however it ends, is
    started again. SIGTERM or Ctrl-C stops in order.
    """
    settings = load_settings(environ=os.environ, file=None)
    configure_logs(form=settings.logs.form, level=settings.logs.level, process="supervisor")
    supervisor = Supervisor(
        [Child("orchestrator-1", (sys.executable, "-m", "tether.orchestrator.process"))],
        policy=RestartPolicy(),
        stop_limit=STOP_SECONDS,
        environ=os.environ,
    )
    sys.exit(supervisor.run())
