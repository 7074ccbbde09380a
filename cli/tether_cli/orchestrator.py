"""`tether orchestrator`: the loops between database and Redis, in a supervised process."""

from __future__ import annotations

import os
import sys

import click

from tether.config.loading import load_settings
from tether.processes.children import Child
from tether.processes.restarts import RestartPolicy
from tether.processes.stopping import GRACE_SECONDS, ORCHESTRATOR_STOP_SECONDS
from tether.processes.supervisor import Supervisor
from tether.telemetry.logs import configure_logs


@click.command()
def orchestrator() -> None:
    """Run the loops that relay, settle, retry and expire jobs.

    Without an orchestrator jobs are accepted, placed and run, but never settled. Any number may run: each
    loop is held by one of them at a time, and if that one dies another takes over within seconds.

    Settings are read from tether.toml and TETHER_* variables. A process that exits for any reason is
    restarted. SIGTERM or Ctrl-C shuts down gracefully; SIGHUP replaces the process, the new one first.
    """
    settings = load_settings(environ=os.environ, file=None)
    configure_logs(form=settings.logs.form, level=settings.logs.level, process="supervisor")
    supervisor = Supervisor(
        [Child("orchestrator-1", (sys.executable, "-m", "tether.orchestrator.process"), overlaps=True)],
        policy=RestartPolicy(),
        stop_limit=ORCHESTRATOR_STOP_SECONDS + GRACE_SECONDS,
        environ=os.environ,
    )
    sys.exit(supervisor.run())
