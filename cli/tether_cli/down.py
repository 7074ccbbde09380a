"""`tether down`: stops what `tether up` runs."""

from __future__ import annotations

from pathlib import Path

import click

from tether_cli.up import dir_option, state_folder


@click.command()
@dir_option
@click.option(
    "--now", "at_once", is_flag=True, help="Do not wait for running jobs: they resume at the next start."
)
def down(folder: Path | None, at_once: bool) -> None:
    """Stop the Tether started by `tether up` on this machine, and wait until it has exited.

    Jobs are kept and resume at the next start. It is not an error if nothing is running.
    """
    from tether.errors import ResultTimeout
    from tether.local.running import STOP_SECONDS, find_running, stop_running, stop_running_now

    place = state_folder(folder)
    running = find_running([place.path])
    if running is None:
        click.echo(f"no Tether is running in {place.path}")
        return
    if at_once:
        stop_running_now(running)
    elif not stop_running(running):
        raise ResultTimeout(
            f"process {running.pid} has not exited within {STOP_SECONDS:g} s: `tether down --now` "
            "waits for nothing, and kills what hangs"
        )
    click.echo(f"stopped the Tether in {place.path}")
