"""`tether pools pause` and `resume`."""

from __future__ import annotations

import click

from tether_cli.fleet.asking import timeout_option
from tether_cli.options.connection import Connection, gateway_options
from tether_cli.pools.asking import asking_pools
from tether_cli.terminal.asides import say_aside
from tether_cli.terminal.printable import one_line
from tether_cli.terminal.tables import print_json


@click.command()
@click.argument("pool", metavar="POOL")
@click.option("--reason", help="Why: jobs that wait for the pool say it.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON document.")
@timeout_option
@gateway_options
def pause(
    gateway: Connection | None, pool: str, reason: str | None, is_json: bool, within: float | None
) -> None:
    """Let a pool get no jobs, and its workers draw none from it, until it is resumed.

    What runs there goes on. What waits there stays, until `tether pools resume` or `tether pools move`. A
    pause survives restarts. Pausing a pool again changes the reason.
    """
    from tether.store.pool_pauses import check_reason

    checked = check_reason(reason)
    with asking_pools(gateway, within, is_json=is_json) as pools:
        document = pools.pause(pool, checked)
    if is_json:
        print_json(document)
        return
    again = " It was paused before." if document["was_paused"] else ""
    why = f": {document['reason']}" if document["reason"] else ""
    say_aside(one_line(f"Pool {document['pool']} is paused{why}. It gets no jobs after 2 seconds.{again}"))


@click.command()
@click.argument("pool", metavar="POOL")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON document.")
@timeout_option
@gateway_options
def resume(gateway: Connection | None, pool: str, is_json: bool, within: float | None) -> None:
    """Let a pool get jobs again, and its workers draw from it."""
    with asking_pools(gateway, within, is_json=is_json) as pools:
        document = pools.resume(pool)
    if is_json:
        print_json(document)
    elif document["was_paused"]:
        say_aside(f"Pool {document['pool']} is resumed. It gets jobs within 2 seconds.")
    else:
        say_aside(f"Pool {document['pool']} was not paused.")
