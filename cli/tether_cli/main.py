"""The `tether` command: one file a verb group, each loaded only when it is called."""

from __future__ import annotations

import click

import tether
from tether_cli.frame import LazyVerbs, Verb
from tether_cli.surroundings import Surroundings

VERBS: dict[str, Verb] = {
    "completion": ("tether_cli.completion", "completion", "Print what makes a shell complete this command."),
    "config": ("tether_cli.config", "config", "Show and check the settings."),
    "dht": ("tether_cli.dht", "dht", "Run a bootstrap node of a private network."),
    "doctor": ("tether_cli.doctor", "doctor", "Check every part, and say how to mend what is missing."),
    "down": ("tether_cli.down", "down", "Stop the Tether that `tether up` runs on this machine."),
    "fleet": ("tether_cli.fleet", "fleet", "Show the workers, say which of them count, and act on them."),
    "gateway": ("tether_cli.gateway", "gateway", "Serve jobs over HTTP."),
    "jobs": ("tether_cli.jobs", "jobs", "List, show, follow and cancel jobs."),
    "keys": ("tether_cli.keys", "keys", "Make, list and revoke API keys."),
    "logs": ("tether_cli.logs", "logs", "Print the logs of a `tether up`, and follow them."),
    "orchestrator": (
        "tether_cli.orchestrator",
        "orchestrator",
        "Carry jobs between the database and Redis until they end.",
    ),
    "status": ("tether_cli.status", "status", "Say what the gateway serves, and which jobs are open."),
    "submit": ("tether_cli.submit", "submit", "Submit a job, and print its text as it is made."),
    "tenants": ("tether_cli.tenants", "tenants", "Make, list and change tenants: their shares and quotas."),
    "up": ("tether_cli.up", "up", "Run a whole Tether on this machine."),
    "worker": (
        "tether_cli.worker",
        "worker",
        "Serve models, or run a program's actors, in supervised worker processes.",
    ),
}
"""Verb: (module, command in it, what it does). The help is here so that listing verbs loads none."""


@click.group(cls=LazyVerbs, verbs=VERBS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(tether.__version__, "--version", "-V", prog_name="tether")
@click.option("--debug", is_flag=True, help="Show a traceback where something fails.")
@click.pass_context
def main(ctx: click.Context, debug: bool) -> None:
    """Tether: a task queue for model inference over GPUs anywhere.

    Verbs that talk to a gateway find it by --url, TETHER_URL, or a `tether up` on this machine, and show it
    the API key of --api-key-file or TETHER_API_KEY.
    """
    if ctx.obj is None:
        ctx.obj = Surroundings()
