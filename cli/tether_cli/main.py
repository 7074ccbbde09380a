"""The `tether` command: one file a verb group, each loaded only when it is called."""

from __future__ import annotations

import click

import tether
from tether.processes.leaving import leave
from tether_cli.environment import CommandEnvironment
from tether_cli.verb_groups import LazyVerbs, Verb

VERBS: dict[str, Verb] = {
    "admin": ("tether_cli.admin", "admin", "Check both stores, reconcile them, or place all jobs anew."),
    "audit": ("tether_cli.audit", "audit", "Read the audit log: who changed what."),
    "breakers": (
        "tether_cli.breakers",
        "breakers",
        "List the circuit breakers of models in regions, and reset them.",
    ),
    "completion": ("tether_cli.completion", "completion", "Print a shell completion script."),
    "config": ("tether_cli.config", "config", "Show and validate the configuration."),
    "dht": ("tether_cli.dht", "dht", "Run a DHT bootstrap node for a private network."),
    "dlq": ("tether_cli.dlq.group", "dlq", "List, show, retry, purge and export dead letters."),
    "doctor": ("tether_cli.doctor", "doctor", "Diagnose a local Tether, with how to fix what failed."),
    "down": ("tether_cli.down", "down", "Stop the Tether started by `tether up` on this machine."),
    "explain": ("tether_cli.explain", "explain", "Show where a job would be placed, or was, and why."),
    "fleet": (
        "tether_cli.fleet.group",
        "fleet",
        "List workers, manage their trusted keys, and drain, cordon or revoke them.",
    ),
    "gateway": ("tether_cli.gateway", "gateway", "Serve jobs over HTTP."),
    "jobs": ("tether_cli.jobs", "jobs", "List, show, follow and cancel jobs."),
    "keys": ("tether_cli.keys", "keys", "Create, list and revoke API keys."),
    "logs": ("tether_cli.logs", "logs", "Print or follow the logs of a `tether up`."),
    "orchestrator": (
        "tether_cli.orchestrator",
        "orchestrator",
        "Run the loops that relay, settle, retry and expire jobs.",
    ),
    "policies": (
        "tether_cli.policies.group",
        "policies",
        "Show, check, compare and set what tenants may do.",
    ),
    "pools": (
        "tether_cli.pools.group",
        "pools",
        "List pools, pause and resume them, and move or cancel the jobs that wait there.",
    ),
    "status": ("tether_cli.status", "status", "Show what the gateway serves, and your open jobs."),
    "submit": ("tether_cli.submit", "submit", "Submit a job, and stream its text."),
    "tenants": ("tether_cli.tenants", "tenants", "Create, list and change tenants: weights and quotas."),
    "up": ("tether_cli.up", "up", "Run a complete Tether on this machine."),
    "worker": (
        "tether_cli.worker",
        "worker",
        "Serve models, or run a program's actors, in supervised worker processes.",
    ),
}
"""Verb: (module, command in it, what it does). The help is here so that listing verbs loads none."""


@click.group(cls=LazyVerbs, verbs=VERBS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(tether.__version__, "--version", "-V", prog_name="tether")
@click.option("--debug", is_flag=True, help="Show a traceback on errors.")
@click.pass_context
def main(ctx: click.Context, debug: bool) -> None:
    """Tether: a task queue for model inference over GPUs anywhere.

    Verbs that use a gateway find it by --url, TETHER_URL, or a `tether up` on this machine, and authenticate
    with the API key from --api-key-file or TETHER_API_KEY.
    """
    if ctx.obj is None:
        ctx.obj = CommandEnvironment()


def run() -> None:
    """Run the command as a process of its own, and end that."""
    try:
        main()
    except SystemExit as ending:
        leave(ending.code)
        raise
