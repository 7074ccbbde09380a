"""The `tether` command: one file a verb group, each loaded only when it is called."""

from __future__ import annotations

import importlib

import click

import tether
from tether.errors import TetherError

VERBS = {
    "orchestrator": (
        "tether_cli.orchestrator",
        "orchestrator",
        "Carry jobs between the database and Redis until they end.",
    ),
    "worker": (
        "tether_cli.worker",
        "worker",
        "Serve models, or run a program's actors, in supervised worker processes.",
    ),
}
"""Verb: (module, command in it, what it does). The help is here so that listing verbs loads none."""


class Verbs(click.Group):
    """Loads a verb's module when the verb is used: `tether --help` stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module, command, _ = VERBS[cmd_name]
        found = getattr(importlib.import_module(module), command)
        assert isinstance(found, click.Command)
        return found

    def invoke(self, ctx: click.Context) -> object:
        """Errors of ours are one line and an exit status."""
        try:
            return super().invoke(ctx)
        except TetherError as error:
            if ctx.params["debug"]:
                raise
            click.echo(f"tether: {error}", err=True)
            ctx.exit(error.exit_status)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, VERBS[verb][2]) for verb in self.list_commands(ctx)])


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(tether.__version__, "--version", "-V", prog_name="tether")
@click.option("--debug", is_flag=True, help="Show a traceback where something fails.")
def main(debug: bool) -> None:
    """Tether: a task queue for model inference over GPUs anywhere."""
