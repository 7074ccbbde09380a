"""What every server's process begins with: settings, logs, and an exit status for what cannot be."""

from __future__ import annotations

import os
from collections.abc import Callable

from tether.config import Settings
from tether.config_loading import load_settings
from tether.embedded.child import NAME_VARIABLE
from tether.errors import TetherError
from tether.telemetry.logs import configure_logs, get_logger


def run_program(kind: str, run: Callable[[Settings], int]) -> int:
    """Run a server as the environment and ``tether.toml`` describe it. Answers its exit status.

    Args:
      kind: What it is, for its logs.
      run: Runs it until it is told to stop.
    """
    try:
        settings = load_settings(environ=os.environ)
        name = os.environ.get(NAME_VARIABLE, kind)
        configure_logs(form=settings.logs.form, level=settings.logs.level, process=name)
        return run(settings)
    except TetherError as error:
        get_logger(f"tether.{kind}").error(str(error), code=error.code)
        return error.exit_status
