"""What is said and asked before a pool loses its last worker."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from tether_cli.terminal.asides import say_aside

if TYPE_CHECKING:
    from tether.config.settings import Settings
    from tether.core.last_workers import LastWorkerPool

yes_option = click.option(
    "--yes",
    "is_sure",
    is_flag=True,
    help="Do not ask. Where there is no terminal, nobody is asked.",
)


def confirm_last(
    last: Sequence[LastWorkerPool], settings: Settings | None, *, is_sure: bool, is_silent: bool
) -> None:
    """Say what becomes of the jobs of pools that lose their last worker; where somebody is there, and jobs
    would wait for it, ask whether to go on.

    Args:
      settings: Those of the fleet; None where another machine has them.

    Raises:
      click.Abort: No.
    """
    from tether.core.last_workers import last_worker_text

    scheduling = None if settings is None else settings.scheduling
    if not is_silent:
        for one in last:
            text = last_worker_text(
                one,
                grace_ms=None if scheduling is None else scheduling.lost_pool_grace,
                parking_ms=None if scheduling is None else scheduling.lost_pool_parking,
            )
            say_aside(f"Note: {text}.")
    costs = any(one.waiting or not one.is_served_elsewhere for one in last)
    if costs and not is_sure and not is_silent and sys.stdin.isatty() and sys.stderr.isatty():
        click.confirm("Go on?", abort=True, err=True)
