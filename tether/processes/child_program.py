"""What every server's process begins with: settings, logs, and an exit status for what cannot be."""

from __future__ import annotations

import os
from collections.abc import Callable

from tether.config.loading import load_settings
from tether.config.settings import Settings
from tether.errors import TetherError
from tether.processes.child import NAME_VARIABLE
from tether.telemetry.logs import configure_logs, get_logger


def run_program(kind: str, run: Callable[[Settings], int]) -> int:
    """Run a server as configured by the environment and ``tether.toml``, and return its exit status.

    Args:
      kind: What it is, for its logs.
      run: Runs it until it is asked to stop.
    """
    try:
        settings = load_settings(environ=os.environ)
        name = os.environ.get(NAME_VARIABLE, kind)
        configure_logs(form=settings.logs.form, level=settings.logs.level, process=name)
        return run(settings)
    except TetherError as error:
        get_logger(f"tether.{kind}").error(str(error), code=error.code)
        return error.exit_status
