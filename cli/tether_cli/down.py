"""`tether down`: stops what `tether up` runs."""

from __future__ import annotations

from pathlib import Path

import click

from tether_cli.up import dir_option, state_folder


@click.command()
@dir_option
@click.option("--now", "at_once", is_flag=True, help="Kill it: running jobs begin anew with the next start.")
def down(folder: Path | None, at_once: bool) -> None:
    """Stop the Tether that `tether up` runs on this machine, and wait for its end.

    Jobs stay, and go on with the next start. Where nothing runs that is said, and is no error.
    """
    from tether.embedded.running import STOP_SECONDS, find_running, kill_running, stop_running
    from tether.errors import ResultTimeout

    place = state_folder(folder)
    running = find_running([place.path])
    if running is None:
        click.echo(f"no Tether runs in {place.path}")
        return
    if at_once:
        kill_running(running)
    elif not stop_running(running):
        raise ResultTimeout(
            f"process {running.pid} has not ended within {STOP_SECONDS:g} s: `tether down --now` kills it"
        )
    click.echo(f"stopped the Tether in {place.path}")
