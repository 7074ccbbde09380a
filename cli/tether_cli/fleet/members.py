"""`tether fleet list`, `show` and `watch`: the workers that are heard of, as Redis or a gateway has them."""

from __future__ import annotations

import functools
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from tether.clocks import wall_clock_ms
from tether_cli.admin_store import admin_settings
from tether_cli.fleet.asking import asking_operator, timeout_option
from tether_cli.options.connection import Connection, gateway_options
from tether_cli.terminal.asides import say_aside
from tether_cli.terminal.output import print_line
from tether_cli.terminal.printable import one_line
from tether_cli.terminal.tables import print_json, print_table, time_text

if TYPE_CHECKING:
    from tether.core.fleet_reading import FleetReading
    from tether_cli.fleet.texts import Document

MAX_NAMED = 5
"""Workers that a note names."""

_NOT_DRAWING = ("silent", "disconnected")
"""States of workers that announce themselves and draw no jobs."""

_OUTAGES = {
    "away": "Redis does not respond: this view may be stale",
    "back": "Redis is back",
    "disconnected": "the gateway does not respond: this view may be stale",
    "connected": "the gateway responds again: all live workers follow",
}


@click.command("list")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON document.")
@timeout_option
@gateway_options
def list_members(gateway: Connection | None, is_json: bool, within: float | None) -> None:
    """List live workers.

    Models marked * are loaded, those marked + are being loaded. `last seen` is the time since the worker's
    last announcement. A narrow terminal shows fewer columns than a pipe gets.
    """
    if gateway is None:
        document, clocks = _list_here(within)
        _print_list(document, clocks, "this machine's", is_json=is_json)
        return
    with asking_operator(gateway, within, is_json=is_json) as client:
        document = client.ask("GET", "workers")
        client.understood(
            lambda found: _print_list(found, found["wrong_clocks"], "the gateway's", is_json=is_json),
            document,
        )


def _list_here(within: float | None) -> tuple[Document, Sequence[str]]:
    """The workers, and those with wrong clocks as they are named."""
    from tether.core.fleet_documents import fleet_to_json, list_fleet
    from tether.core.fleet_reading import open_fleet
    from tether.local.fleet_check import clock_text

    with open_fleet(admin_settings(), within=within) as reading:
        found = list_fleet(reading)
    clocks = [f"{worker} ({clock_text(ahead_ms)})" for worker, ahead_ms in sorted(found.wrong_clocks.items())]
    return fleet_to_json(found), clocks


def _print_list(found: Document, clocks: Sequence[str], whose: str, *, is_json: bool) -> None:
    from tether_cli.fleet.texts import COLUMNS, fitting, row

    if is_json:
        print_json(found)
        return
    columns, rows = COLUMNS, [row(worker) for worker in found["data"]]
    if sys.stdout.isatty():
        columns, rows = fitting(rows, shutil.get_terminal_size().columns)
    print_table(columns, rows)
    if not found["data"]:
        say_aside("No live workers.")
    if silent := [worker["worker_id"] for worker in found["data"] if worker["state"] in _NOT_DRAWING]:
        say_aside(_silent_text(silent))
    if found["copied"]:
        say_aside(_copied_text(found["copied"]))
    if found["untrusted"]:
        say_aside(_strangers_text(found["untrusted"]))
    if clocks:
        say_aside(_clocks_text(clocks, whose))
    for worker, reasons in sorted(found["failing"].items()):
        for model, why in sorted(reasons.items()):
            say_aside(one_line(f"Worker {worker} cannot load {model}: {why}"))
    for worker, pools in sorted(found["held"].items()):
        for pool, why in sorted(pools.items()):
            say_aside(one_line(f"Worker {worker} is held from pool {pool}: {why}"))


@click.command()
@click.argument("worker", metavar="WORKER")
@click.option(
    "--full",
    "is_full",
    is_flag=True,
    help="Ask the worker for its complete cache, if that does not fit in an announcement.",
)
@click.option("--json", "is_json", is_flag=True, help="Print one JSON document.")
@timeout_option
@gateway_options
def show(gateway: Connection | None, worker: str, is_full: bool, is_json: bool, within: float | None) -> None:
    """Show everything that a worker announces about itself.

    WORKER is a worker id, a public key, or a name if only one worker has it. With --full, the
    worker is asked for the rest of a cache that is too large to announce; it replies to trusted operators
    only.
    """
    if gateway is None:
        found = _worker_here(worker, within, is_full=is_full)
        _print_worker(found, is_full=is_full, is_json=is_json)
        return
    with asking_operator(gateway, within, is_json=is_json) as client:
        document = client.ask("GET", "workers", worker, query={"full": "true"} if is_full else ())
        client.understood(lambda found: _print_worker(found, is_full=is_full, is_json=is_json), document)


def _worker_here(worker: str, within: float | None, *, is_full: bool) -> Document:
    from tether.core.fleet_commands import whole_cache
    from tether.core.fleet_documents import drawing_of, whole_worker_to_json
    from tether.core.fleet_reading import meant_member, open_fleet
    from tether.core.pool_backlogs import last_worker_of, owed_where_known
    from tether.discovery.fleet.shown_states import shown_state

    with open_fleet(admin_settings(), within=within) as reading:
        fleet, names, now = reading.view.fleet, reading.names, reading.now
        member = meant_member(worker, fleet, names)
        drawing = drawing_of(member, fleet, reading.view.evidence, reading.held_pools())
        last = last_worker_of(
            reading, member.presence.worker_id, functools.partial(owed_where_known, reading.settings)
        )
        cache = member.presence.cache
        if is_full and not cache.is_complete:
            cache = whole_cache(reading, member)
    name, state = names.get(member.presence.worker_id, ""), shown_state(fleet, member, now)
    return whole_worker_to_json(member, state, name, now, cache, drawing, last)


def _print_worker(found: Document, *, is_full: bool, is_json: bool) -> None:
    from tether_cli.fleet.texts import cache_lines, lines

    if is_json:
        print_json(found)
        return
    rows = [*lines(found), *cache_lines(found["cache"])]
    if not found["cache"]["is_complete"]:
        asked = "more than fits in a reply" if is_full else "more, shown by --full"
        rows.append(("cached more", asked))
    width = max(len(what) for what, _ in rows)
    for what, value in rows:
        click.echo(f"{what:<{width}}  {one_line(value)}")


@click.command()
@click.option("--json", "is_json", is_flag=True, help="Print each change as one JSON object per line.")
@gateway_options
def watch(gateway: Connection | None, is_json: bool) -> None:
    """Print the live workers, then one line for each worker that joins, leaves or changes state.

    Stop with Ctrl-C.
    """
    if gateway is None:
        from tether.core.fleet_reading import open_fleet

        with open_fleet(admin_settings()) as reading:
            for document in _changes_here(reading):
                _print_change(document, is_json=is_json)
        return
    with gateway.open_operator() as client:
        for document in client.changes():
            client.understood(lambda found: _print_change(found, is_json=is_json), document)


def _changes_here(reading: FleetReading) -> Iterator[Document]:
    from tether.core.fleet_documents import change_to_json
    from tether.core.fleet_looks import LOOK_SECONDS, FleetLooks

    never = threading.Event()
    looks = FleetLooks(reading)
    news = looks.present()
    while True:
        at = wall_clock_ms()
        if news.is_away is not None:
            yield {"kind": "away" if news.is_away else "back", "at": at}
        if news.changes:
            names = reading.names
            yield from (change_to_json(change, names, at) for change in news.changes)
        never.wait(LOOK_SECONDS)
        news = looks.look()


def _print_change(change: Document, *, is_json: bool) -> None:
    from tether_cli.fleet.texts import change_line

    if is_json:
        print_line(change)
    elif said := _OUTAGES.get(change["kind"]):
        say_aside(f"{time_text(change['at'])}  {said}.")
    else:
        click.echo(change_line(change))


def _silent_text(silent: Sequence[str]) -> str:
    who = (
        f"{len(silent)} workers announce themselves and draw"
        if len(silent) != 1
        else "1 worker announces itself and draws"
    )
    return f"{who} no jobs, so that none are placed there: {_named(silent)}. Look whether they reach Redis."


def _copied_text(copied: Sequence[str]) -> str:
    whose = f"The keys of {len(copied)} workers are" if len(copied) != 1 else "The key of 1 worker is"
    return (
        f"{whose} used by several processes, of which only one draws: {_named(copied)}. Give each host an "
        "identity folder of its own."
    )


def _clocks_text(clocks: Sequence[str], whose: str) -> str:
    return (
        f"Ignored, since their clocks differ too much from {whose}: {_named(clocks)}. Synchronize the "
        "machines' clocks (NTP)."
    )


def _named(workers: Sequence[str]) -> str:
    return ", ".join(workers[:MAX_NAMED]) + (", ..." if len(workers) > MAX_NAMED else "")


def _strangers_text(strangers: Sequence[str]) -> str:
    many = len(strangers) != 1
    named = _named(strangers)
    who = f"{len(strangers)} other workers are" if many else "1 other worker is"
    whose = "their keys are untrusted" if many else "its key is untrusted"
    return f"{who} ignored, since {whose} or revoked: {named}. Add a public key with `tether fleet trust`."
