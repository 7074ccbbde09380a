"""`tether fleet`: the group of the verbs about workers."""

from __future__ import annotations

import click

from tether_cli import fleet_keys
from tether_cli.frame import VerbGroup


@click.group(cls=VerbGroup)
def fleet() -> None:
    """Say which workers count, and act on them."""


for _verb in (fleet_keys.trust, fleet_keys.revoke, fleet_keys.keys):
    fleet.add_command(_verb)
