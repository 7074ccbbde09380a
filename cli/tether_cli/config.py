"""`tether config`: the settings, where each is from, and whether they are valid."""

from __future__ import annotations

import os
from pathlib import Path

import click

from tether_cli.terminal.printable import one_line
from tether_cli.terminal.tables import print_json, print_table
from tether_cli.verb_groups import VerbGroup

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@click.group(cls=VerbGroup)
def config() -> None:
    """Show and validate the configuration."""


@config.command()
@as_json_option
def show(as_json: bool) -> None:
    """Show every setting, its value and its source. Secrets are masked."""
    from tether.config.loading import load_settings

    rows = load_settings(environ=os.environ, file=None).describe()
    if as_json:
        print_json([{"key": row.key, "value": row.value, "source": row.source} for row in rows])
        return
    shown = [tuple(map(one_line, (row.key, str(row.value), row.source))) for row in rows]
    print_table(("KEY", "VALUE", "SOURCE"), shown)


@config.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@as_json_option
def check(file: Path | None, as_json: bool) -> None:
    """Validate the configuration: print "ok", or report every problem.

    Without FILE, checks the settings that every program would load in this directory. The environment
    is read in both cases. A hook that the configuration names is imported.
    """
    from tether.config.loading import load_settings
    from tether.processes.hook_process import try_death_hook

    settings = load_settings(environ=os.environ, file=file)
    if settings.hooks.on_dead:
        try_death_hook(settings.hooks.on_dead)
    if as_json:
        print_json({"is_ok": True})
    else:
        click.echo("ok")
