"""`tether fleet list`, `show` and `watch`: the workers that are heard of, as Redis has them."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from tether.clocks import wall_clock_ms
from tether_cli.admin_store import admin_settings
from tether_cli.terminal.output import print_line
from tether_cli.terminal.printable import one_line
from tether_cli.terminal.tables import print_json, print_table, time_text

if TYPE_CHECKING:
    from tether.core.fleet_changes import Change
    from tether.core.fleet_reading import FleetReading
    from tether.ids import WorkerId

MAX_NAMED = 5
"""Workers that a note names."""


@click.command("list")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON document.")
def list_members(is_json: bool) -> None:
    """List live workers.

    Models marked * are loaded, those marked + are being loaded. `last seen` is the time since the worker's
    last announcement. A narrow terminal shows fewer columns than a pipe gets.
    """
    from tether.core.fleet_documents import fleet_to_json, list_fleet
    from tether.core.fleet_reading import open_fleet
    from tether.discovery.fleet.shown_states import NOT_DRAWING
    from tether_cli.fleet.texts import COLUMNS, fitting, row

    with open_fleet(admin_settings()) as reading:
        found = list_fleet(reading)
    if is_json:
        print_json(fleet_to_json(found))
        return
    columns, rows = COLUMNS, [row(seen, name, found.now) for seen, name in found.workers]
    if sys.stdout.isatty():
        columns, rows = fitting(rows, shutil.get_terminal_size().columns)
    print_table(columns, rows)
    if not found.workers:
        click.echo("No live workers.", err=True)
    if silent := [seen.member.presence.worker_id for seen, _ in found.workers if seen.state in NOT_DRAWING]:
        click.echo(_silent_text(silent), err=True)
    if found.copied:
        click.echo(_copied_text(found.copied), err=True)
    if found.untrusted:
        click.echo(_strangers_text(found.untrusted), err=True)
    if found.wrong_clocks:
        click.echo(_clocks_text(found.wrong_clocks), err=True)
    for worker, reasons in sorted(found.failing.items()):
        for model, why in sorted(reasons.items()):
            click.echo(f"Worker {worker} cannot load {model}: {why}", err=True)
    for worker, pools in sorted(found.held.items()):
        for pool, why in sorted(pools.items()):
            click.echo(f"Worker {worker} is held from pool {pool}: {why}", err=True)


@click.command()
@click.argument("worker", metavar="WORKER")
@click.option(
    "--full",
    "is_full",
    is_flag=True,
    help="Ask the worker for its complete cache, if that does not fit in an announcement.",
)
@click.option("--json", "is_json", is_flag=True, help="Print one JSON document.")
def show(worker: str, is_full: bool, is_json: bool) -> None:
    """Show everything that a worker announces about itself.

    WORKER is a worker id, a public key, or a name if only one worker has it. With --full, the
    worker is asked for the rest of a cache that is too large to announce; it replies to trusted operators
    only.
    """
    from tether.core.fleet_changes import Seen
    from tether.core.fleet_commands import whole_cache
    from tether.core.fleet_documents import drawing_of, whole_worker_to_json
    from tether.core.fleet_reading import meant_member, open_fleet
    from tether.core.pool_backlogs import last_worker_of
    from tether.discovery.fleet.shown_states import shown_state
    from tether_cli.fleet.last_workers import last_worker_lines
    from tether_cli.fleet.texts import cache_lines, lines

    with open_fleet(admin_settings()) as reading:
        fleet, names, evidence = reading.view.fleet, reading.names, reading.view.evidence
        now = reading.now
        member = meant_member(worker, fleet, names)
        last, held = last_worker_of(reading, member.presence.worker_id), reading.held_pools()
        cache = member.presence.cache
        if is_full and not cache.is_complete:
            cache = whole_cache(reading, member)
    seen = Seen(member, shown_state(fleet, member, now))
    name = names.get(member.presence.worker_id, "")
    drawing = drawing_of(member, fleet, evidence, held)
    if is_json:
        print_json(whole_worker_to_json(*seen, name, now, cache, drawing, last))
        return
    rows = [*lines(seen, name, now, drawing), *last_worker_lines(last), *cache_lines(cache)]
    if not cache.is_complete:
        asked = "more than fits in a reply" if is_full else "more, shown by --full"
        rows.append(("cached more", asked))
    width = max(len(what) for what, _ in rows)
    for what, value in rows:
        click.echo(f"{what:<{width}}  {one_line(value)}")


@click.command()
@click.option("--json", "is_json", is_flag=True, help="Print each change as one JSON object per line.")
def watch(is_json: bool) -> None:
    """Print the live workers, then one line for each worker that joins, leaves or changes state.

    Stop with Ctrl-C.
    """
    from tether.core.fleet_reading import open_fleet

    with open_fleet(admin_settings()) as reading:
        _watch(reading, is_json=is_json)


def _watch(reading: FleetReading, *, is_json: bool) -> None:
    from tether.core.fleet_looks import LOOK_SECONDS, FleetLooks

    never = threading.Event()
    looks = FleetLooks(reading)
    news = looks.present()
    while True:
        if news.is_away is not None:
            _tell_whether_away(news.is_away, is_json=is_json)
        _tell_changes(news.changes, reading, is_json=is_json)
        never.wait(LOOK_SECONDS)
        news = looks.look()


def _tell_changes(changed: Sequence[Change], reading: FleetReading, *, is_json: bool) -> None:
    from tether.core.fleet_documents import change_to_json
    from tether_cli.fleet.texts import change_line

    if not changed:
        return
    names, at = reading.names, wall_clock_ms()
    for change in changed:
        if is_json:
            print_line(change_to_json(change, names, at))
        else:
            click.echo(change_line(change, names, at))


def _tell_whether_away(is_away: bool, *, is_json: bool) -> None:
    kind, at = "away" if is_away else "back", wall_clock_ms()
    if is_json:
        document: dict[str, Any] = {"kind": kind, "at": at}
        print_line(document)
        return
    said = "Redis does not respond: this view may be stale" if is_away else "Redis is back"
    click.echo(f"{time_text(at)}  {said}.", err=True)


def _silent_text(silent: Sequence[WorkerId]) -> str:
    who = (
        f"{len(silent)} workers announce themselves and draw"
        if len(silent) != 1
        else "1 worker announces itself and draws"
    )
    return f"{who} no jobs, so that none are placed there: {_named(silent)}. Look whether they reach Redis."


def _copied_text(copied: Sequence[WorkerId]) -> str:
    whose = f"The keys of {len(copied)} workers are" if len(copied) != 1 else "The key of 1 worker is"
    return (
        f"{whose} used by several processes, of which only one draws: {_named(copied)}. Give each host an "
        "identity folder of its own."
    )


def _clocks_text(clocks: Mapping[WorkerId, int]) -> str:
    from tether.local.fleet_check import clock_text

    named = _named([f"{worker} ({clock_text(ahead_ms)})" for worker, ahead_ms in sorted(clocks.items())])
    return (
        f"Ignored, since their clocks differ too much from this machine's: {named}. Synchronize the "
        "machines' clocks (NTP)."
    )


def _named(workers: Sequence[str]) -> str:
    return ", ".join(workers[:MAX_NAMED]) + (", ..." if len(workers) > MAX_NAMED else "")


def _strangers_text(strangers: Sequence[WorkerId]) -> str:
    many = len(strangers) != 1
    named = _named(strangers)
    who = f"{len(strangers)} other workers are" if many else "1 other worker is"
    whose = "their keys are untrusted" if many else "its key is untrusted"
    return f"{who} ignored, since {whose} or revoked: {named}. Add a public key with `tether fleet trust`."
