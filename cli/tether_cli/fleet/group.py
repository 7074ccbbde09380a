"""`tether fleet`: the group of the verbs about workers."""

from __future__ import annotations

import click

from tether_cli.fleet import commands as fleet_commands
from tether_cli.fleet import keys as fleet_keys
from tether_cli.fleet import members as fleet_members
from tether_cli.verb_groups import VerbGroup


@click.group(cls=VerbGroup)
def fleet() -> None:
    """List workers, manage their trusted keys, and drain, cordon or revoke them."""


for _verb in (
    *(fleet_members.list_members, fleet_members.show, fleet_members.watch),
    *(fleet_commands.drain, fleet_commands.cordon, fleet_commands.uncordon),
    *(fleet_keys.trust, fleet_keys.revoke, fleet_keys.keys),
):
    fleet.add_command(_verb)
