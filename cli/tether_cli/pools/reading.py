"""`tether pools list` and `show`."""

from __future__ import annotations

import shutil
import sys

import click

from tether_cli.fleet.asking import timeout_option
from tether_cli.options.connection import Connection, gateway_options
from tether_cli.pools.asking import asking_pools
from tether_cli.terminal.asides import say_aside
from tether_cli.terminal.printable import one_line
from tether_cli.terminal.tables import fitting_columns, print_json, print_table


@click.command("list")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON document.")
@timeout_option
@gateway_options
def list_pools(gateway: Connection | None, is_json: bool, within: float | None) -> None:
    """List the pools that workers announce, that have jobs or that are paused.

    `jobs` are those that wait or run; `waiting` those that wait in Redis, `owed` those that wait in the
    database for room there. A narrow terminal shows fewer columns than a pipe gets.
    """
    from tether_cli.pools.texts import POOL_COLUMNS, POOL_LEFT_OUT_FIRST, pool_row

    with asking_pools(gateway, within, is_json=is_json) as pools:
        found = pools.list_pools()
    if is_json:
        print_json(found)
        return
    columns, rows = POOL_COLUMNS, [pool_row(pool) for pool in found["data"]]
    if sys.stdout.isatty():
        columns, rows = fitting_columns(
            POOL_COLUMNS, rows, POOL_LEFT_OUT_FIRST, shutil.get_terminal_size().columns
        )
    print_table(columns, rows)
    if not rows:
        say_aside("No pools: no live worker announces one, and none has jobs.")
    for pool in found["data"]:
        if pool["paused_at"] is not None and pool["reason"]:
            say_aside(one_line(f"Pool {pool['pool']} is paused: {pool['reason']}"))
    # An older gateway tells none.
    if shut := found.get("breakers"):
        more = f", and {len(shut) - 1} more" if len(shut) > 1 else ""
        say_aside(one_line(f"Jobs are kept away: {shut[0]}{more}. `tether breakers list` shows it"))


@click.command()
@click.argument("pool", metavar="POOL")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON document.")
@timeout_option
@gateway_options
def show(gateway: Connection | None, pool: str, is_json: bool, within: float | None) -> None:
    """Show a pool with its workers, and what waits there of each class."""
    from tether_cli.pools.texts import MEMBER_COLUMNS, member_row, pool_lines

    with asking_pools(gateway, within, is_json=is_json) as pools:
        found = pools.show(pool)
    if is_json:
        print_json(found)
        return
    lines = pool_lines(found)
    width = max(len(what) for what, _ in lines)
    for what, value in lines:
        click.echo(f"{what:<{width}}  {one_line(value)}")
    if found["members"]:
        click.echo()
        print_table(MEMBER_COLUMNS, [member_row(member) for member in found["members"]])
    for member in found["members"]:
        if member["held"]:
            say_aside(one_line(f"Worker {member['worker_id']} is held back: {member['held']}"))
