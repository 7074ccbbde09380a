"""`tether down`: stops what `tether up` runs."""

from __future__ import annotations

from pathlib import Path

import click

from tether_cli.up import dir_option, state_folder


@click.command()
@dir_option
@click.option("--now", "at_once", is_flag=True, help="Kill it: running jobs resume at the next start.")
def down(folder: Path | None, at_once: bool) -> None:
    """Stop the Tether started by `tether up` on this machine, and wait until it has exited.

    Jobs are kept and resume at the next start. It is not an error if nothing is running.
    """
    from tether.errors import ResultTimeout
    from tether.local.running import STOP_SECONDS, find_running, kill_running, stop_running

    place = state_folder(folder)
    running = find_running([place.path])
    if running is None:
        click.echo(f"no Tether is running in {place.path}")
        return
    if at_once:
        kill_running(running)
    elif not stop_running(running):
        raise ResultTimeout(
            f"process {running.pid} has not exited within {STOP_SECONDS:g} s: `tether down --now` kills it"
        )
    click.echo(f"stopped the Tether in {place.path}")
