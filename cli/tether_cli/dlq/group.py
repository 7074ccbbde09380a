"""`tether dlq`: list, show, retry, purge and export dead letters."""

from __future__ import annotations

import click

from tether_cli.dlq.changes import purge, retry
from tether_cli.dlq.reading import export, list_letters, show
from tether_cli.verb_groups import VerbGroup


@click.group(cls=VerbGroup)
def dlq() -> None:
    """List, show, retry, purge and export dead letters: the records of jobs that failed for good.

    Each has a retry token, which makes one new job of it. An operator's key reaches those of all tenants,
    with --all-tenants or --tenant.
    """


for _command in (list_letters, show, retry, purge, export):
    dlq.add_command(_command)
