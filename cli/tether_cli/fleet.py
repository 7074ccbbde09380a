"""`tether fleet`: the group of the verbs about workers."""

from __future__ import annotations

import click

from tether_cli import fleet_commands, fleet_keys, fleet_members
from tether_cli.frame import VerbGroup


@click.group(cls=VerbGroup)
def fleet() -> None:
    """Show the workers, say which of them count, and act on them."""


for _verb in (
    *(fleet_members.list_members, fleet_members.show, fleet_members.watch),
    *(fleet_commands.drain, fleet_commands.cordon, fleet_commands.uncordon),
    *(fleet_keys.trust, fleet_keys.revoke, fleet_keys.keys),
):
    fleet.add_command(_verb)
