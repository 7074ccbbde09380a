"""`tether pools`: the group of the verbs about pools."""

from __future__ import annotations

import click

from tether_cli.pools import changes, pauses, reading
from tether_cli.verb_groups import VerbGroup


@click.group(cls=VerbGroup)
def pools() -> None:
    """List pools, pause and resume them, and move or cancel the jobs that wait there."""


for _verb in (
    *(reading.list_pools, reading.show),
    *(pauses.pause, pauses.resume),
    *(changes.move, changes.purge),
):
    pools.add_command(_verb)
