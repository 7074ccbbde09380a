"""`tether fleet list`, `show` and `watch`: the workers that are heard of, as Redis has them."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from tether_cli.admin_store import admin_settings
from tether_cli.output import print_line
from tether_cli.printable import one_line
from tether_cli.tables import print_json, print_table, time_text

if TYPE_CHECKING:
    from tether.discovery.announcements.presence import CacheManifest
    from tether.discovery.fleet.fleet import Member
    from tether_cli.fleet_changes import Change
    from tether_cli.fleet_reading import FleetReading

LOOK_SECONDS = 0.2
"""How often the fleet is looked at that is watched."""

AWAY_AFTER_INTERVALS = 1.5
"""Intervals of presence without an answer of Redis after which somebody who watches is told."""

MOST_NAMED = 5
"""Workers that a note names."""


@click.command("list")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON document.")
def list_members(is_json: bool) -> None:
    """List the workers that are heard of now.

    A model with * is loaded, one with + is being loaded. `heard` is how long ago the worker was last heard
    of. A narrow terminal shows fewer columns than a pipe gets.
    """
    from tether_cli.fleet_changes import look_at
    from tether_cli.fleet_reading import open_fleet
    from tether_cli.fleet_texts import COLUMNS, fitting, row, worker_to_json

    with open_fleet(admin_settings()) as reading:
        fleet, names, strangers = reading.view.fleet, reading.names, reading.strangers
        now = reading.now
    found = [(seen, names.get(worker, "")) for worker, seen in look_at(fleet, now).items()]
    found.sort(
        key=lambda one: (
            *(one[0].member.presence.region, one[0].member.presence.gpu_class),
            *(one[1], one[0].member.presence.worker_id),
        )
    )
    if is_json:
        data = [worker_to_json(seen, name, now) for seen, name in found]
        print_json({"object": "list", "data": data, "untrusted": list(strangers)})
        return
    columns, rows = COLUMNS, [row(seen, name, now) for seen, name in found]
    if sys.stdout.isatty():
        columns, rows = fitting(rows, shutil.get_terminal_size().columns)
    print_table(columns, rows)
    if not found:
        click.echo("No worker is heard of now.", err=True)
    if strangers:
        click.echo(_strangers_text(strangers), err=True)


@click.command()
@click.argument("worker", metavar="WORKER")
@click.option("--full", "is_full", is_flag=True, help="Ask the worker for what it has no room to announce.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON document.")
def show(worker: str, is_full: bool, is_json: bool) -> None:
    """Show what a worker announces of itself.

    WORKER is the worker's id, its public key, or its name where only one has it. With --full the worker is
    asked for the rest of a cache that is too large to be announced: it answers who may command it.
    """
    from tether_cli.fleet_changes import Seen, shown_state
    from tether_cli.fleet_reading import meant_member, open_fleet
    from tether_cli.fleet_texts import cache_lines, lines, whole_worker_to_json

    with open_fleet(admin_settings()) as reading:
        fleet, names = reading.view.fleet, reading.names
        now = reading.now
        member = meant_member(worker, fleet, names)
        cache = member.presence.cache
        if is_full and not cache.is_complete:
            cache = _whole_cache(reading, member)
    seen = Seen(member, shown_state(fleet, member, now))
    name = names.get(member.presence.worker_id, "")
    if is_json:
        print_json(whole_worker_to_json(seen, name, now, cache))
        return
    told = [*lines(seen, name, now), *cache_lines(cache)]
    if not cache.is_complete:
        asked = "more than it can tell of" if is_full else "others, of which --full tells"
        told.append(("cached more", asked))
    width = max(len(what) for what, _ in told)
    for what, value in told:
        click.echo(f"{what:<{width}}  {one_line(value)}")


def _whole_cache(reading: FleetReading, member: Member) -> CacheManifest:
    """What a worker answers when it is asked for all that its cache has.

    Raises:
      BrokerUnavailable: Redis went away.
      CommandUnanswered: The worker does not answer.
    """
    import redis

    from tether.discovery.commands.manifest_request import ANSWER_SECONDS, request_manifest
    from tether.discovery.commands.operator_key import operator_key
    from tether.errors import CommandUnanswered
    from tether_cli.fleet_reading import unavailable

    key = operator_key(reading.settings.presence.identity_dir)
    try:
        cache = request_manifest(reading.client, reading.keys, member.presence, key)
    except redis.RedisError as error:
        raise unavailable(reading.client, error) from None
    if cache is None:
        raise CommandUnanswered(
            f"worker {member.presence.worker_id} does not tell within {ANSWER_SECONDS:g} s what it has. "
            "Where its log says that the command is refused, add the operator's key "
            f"{key.verify_key.encode().hex()} to its presence.operator_keys"
        )
    return cache


@click.command()
@click.option("--json", "is_json", is_flag=True, help="Print each change as one line of JSON.")
def watch(is_json: bool) -> None:
    """Print who is there, and then one line for each worker that joins, leaves or changes its state.

    Ctrl-C ends it.
    """
    from tether_cli.fleet_reading import open_fleet

    with open_fleet(admin_settings()) as reading:
        _watch(reading, is_json=is_json)


def _watch(reading: FleetReading, *, is_json: bool) -> None:
    from tether_cli.fleet_changes import changes, first_look, look_at

    never = threading.Event()
    longest_silence = reading.settings.presence.interval * AWAY_AFTER_INTERVALS
    is_away = False
    before = look_at(reading.view.fleet, reading.now)
    _tell_changes(first_look(before), reading, is_json=is_json)
    while True:
        never.wait(LOOK_SECONDS)
        silence = reading.view.staleness_ms() or 0
        if is_away != (silence > longest_silence):
            is_away = not is_away
            _tell_whether_away(is_away, is_json=is_json)
        # Asked before the clock: whom silence has removed must be seen to have been silent for too long.
        fleet, now = reading.view.fleet, reading.now
        after = look_at(fleet, now)
        _tell_changes(changes(before, after, now), reading, is_json=is_json)
        before = after


def _tell_changes(found: Sequence[Change], reading: FleetReading, *, is_json: bool) -> None:
    from tether_cli.fleet_texts import change_line, change_to_json

    if not found:
        return
    names, at = reading.names, _now_ms()
    for change in found:
        if is_json:
            print_line(change_to_json(change, names, at))
        else:
            click.echo(change_line(change, names, at))


def _tell_whether_away(is_away: bool, *, is_json: bool) -> None:
    kind, at = "away" if is_away else "back", _now_ms()
    if is_json:
        document: dict[str, Any] = {"kind": kind, "at": at}
        print_line(document)
        return
    said = "Redis does not answer: what is shown may be old" if is_away else "Redis is back"
    click.echo(f"{time_text(at)}  {said}.", err=True)


def _strangers_text(strangers: Sequence[str]) -> str:
    many = len(strangers) != 1
    named = ", ".join(strangers[:MOST_NAMED]) + (", ..." if len(strangers) > MOST_NAMED else "")
    who = f"{len(strangers)} others do" if many else "1 other does"
    whose = "their keys are not trusted, or were" if many else "its key is not trusted, or was"
    return f"{who} not count, since {whose} revoked: {named}. `tether fleet trust` takes a public key."


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
