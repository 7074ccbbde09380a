"""`tether fleet drain`, `cordon` and `uncordon`: signed commands to one worker."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from tether.clocks import wall_clock_ms
from tether_cli.acts import act_of_user, audit_of
from tether_cli.admin_store import admin_settings
from tether_cli.fleet.last_workers import confirm_last, yes_option
from tether_cli.fleet.obeying import gone_meanwhile, unconfirmed
from tether_cli.options.connection import Connection, gateway_options
from tether_cli.options.values import read_duration
from tether_cli.terminal.asides import say_aside
from tether_cli.terminal.printable import one_line
from tether_cli.terminal.tables import print_json

if TYPE_CHECKING:
    from tether.core.fleet_reading import FleetReading
    from tether.core.last_workers import LastWorkerPool
    from tether.discovery.commands.command import Command
    from tether.discovery.fleet.fleet import Fleet, Member

WAIT_SECONDS = 15.0
_DONE = {
    "drain": "is draining: it takes no new jobs, and hands over those that do not finish in time",
    "cordon": "is cordoned: it takes no new jobs, and finishes those that it runs",
    "uncordon": "takes jobs again",
}


def _options(verb: Callable[..., None]) -> Callable[..., None]:
    """What the three verbs share."""
    for option in (
        click.option("--json", "is_json", is_flag=True, help="Print one JSON document."),
        click.option(
            "--timeout", metavar="TIME", callback=read_duration, help="Maximum time to wait.  [default: 15s]"
        ),
        click.option(
            "--wait/--no-wait", "waits", default=True, help="Wait until the worker reports the new state."
        ),
        click.argument("worker", metavar="WORKER"),
    ):
        verb = option(verb)
    return gateway_options(verb)


@click.command()
@_options
@yes_option
def drain(
    gateway: Connection | None, worker: str, waits: bool, timeout: float | None, is_json: bool, is_sure: bool
) -> None:
    """Stop assigning jobs to a worker, and hand over those that do not finish in time.

    Its process keeps running: `tether fleet uncordon` lets it take jobs again. Jobs that do not finish
    within its `worker.drain_timeout` continue on another worker, at the same token. Where it is the last
    worker of a pool, that is said first, with what becomes of the jobs that wait there; a terminal is asked.

    WORKER is a worker id, a public key, or a name if only one worker has it.
    """
    _tell("drain", worker, gateway, waits=waits, timeout=timeout, is_json=is_json, is_sure=is_sure)


@click.command()
@_options
@yes_option
def cordon(
    gateway: Connection | None, worker: str, waits: bool, timeout: float | None, is_json: bool, is_sure: bool
) -> None:
    """Stop assigning jobs to a worker. Running jobs continue.

    Where it is the last worker of a pool, that is said first, with what becomes of the jobs that wait there;
    a terminal is asked.

    WORKER is a worker id, a public key, or a name if only one worker has it.
    """
    _tell("cordon", worker, gateway, waits=waits, timeout=timeout, is_json=is_json, is_sure=is_sure)


@click.command()
@_options
def uncordon(
    gateway: Connection | None, worker: str, waits: bool, timeout: float | None, is_json: bool
) -> None:
    """Resume assigning jobs to a worker.

    WORKER is a worker id, a public key, or a name if only one worker has it.
    """
    _tell("uncordon", worker, gateway, waits=waits, timeout=timeout, is_json=is_json, is_sure=True)


def _tell(
    verb: str,
    worker: str,
    gateway: Connection | None,
    *,
    waits: bool,
    timeout: float | None,
    is_json: bool,
    is_sure: bool,
) -> None:
    if not waits and timeout is not None:
        raise click.UsageError("--timeout cannot be combined with --no-wait.")
    seconds = (WAIT_SECONDS if timeout is None else timeout) if waits else None
    if gateway is None:
        document, name = _tell_here(verb, worker, seconds, is_json=is_json, is_sure=is_sure)
    else:
        from tether_cli.fleet.over_http import tell_over_http

        # The worker's time begins once it is told, and a person may be asked before that: the time that was
        # given bounds how long each call is tried, not all of them together.
        with gateway.open_operator(patience=timeout) as client:
            document, name = tell_over_http(
                client,
                verb,
                worker,
                seconds,
                lambda last: confirm_last(last, None, is_sure=is_sure, is_silent=is_json),
            )
    if is_json:
        print_json(document)
        return
    shown = f"Worker {document['worker_id']}" + (f" ({one_line(name)})" if name else "")
    told = f"{shown} {_DONE[verb]}." if waits else f"{shown}: the command {verb} was sent."
    say_aside(told)


def _tell_here(
    verb: str, worker: str, seconds: float | None, *, is_json: bool, is_sure: bool
) -> tuple[Mapping[str, Any], str]:
    """Tell a worker through this machine's Redis.

    Args:
      seconds: How long to wait until it shows; None for not at all.

    Returns: What was sent, and the worker's name.
    """
    from tether.core.fleet_commands import tell_worker
    from tether.core.fleet_reading import meant_member, open_fleet
    from tether.core.pool_backlogs import last_worker_of, owed_where_known
    from tether.discovery.commands.command import Action

    action = Action(verb)
    settings = admin_settings()
    with open_fleet(settings) as reading:
        names = reading.names
        member = meant_member(worker, reading.view.fleet, names)
        last: Sequence[LastWorkerPool] = ()
        if action is not Action.UNCORDON:
            owed = functools.partial(owed_where_known, settings)
            last = last_worker_of(reading, member.presence.worker_id, owed)
            confirm_last(last, settings, is_sure=is_sure, is_silent=is_json)
        with audit_of(settings) as log:
            act = act_of_user(f"fleet.{verb}", member.presence.worker_id)
            command = log.elsewhere(act, lambda: tell_worker(reading, member, action, now_ms=wall_clock_ms()))
        if seconds is not None:
            _wait(reading, member, command, seconds)
    document = {**_to_json(command, is_shown=seconds is not None), "last_of": [vars(one) for one in last]}
    return document, names.get(member.presence.worker_id, "")


def _wait(reading: FleetReading, member: Member, command: Command, seconds: float) -> None:
    """Wait until the worker announces that it does what it was told.

    Raises:
      WorkerNotFound: It is gone meanwhile, or was started again.
      CommandUnanswered: It does not within so many seconds.
    """
    from tether.discovery.announcements.presence import WorkerState
    from tether.discovery.commands.command import Action

    wanted = {
        Action.UNCORDON: WorkerState.SERVING,
        Action.CORDON: WorkerState.CORDONED,
        Action.DRAIN: WorkerState.DRAINING,
    }[command.action]
    worker, order = command.target, member.presence.order

    def is_gone(fleet: Fleet) -> bool:
        member = fleet.members.get(worker)
        return member is None or member.presence.boot_counter != order.boot_counter

    def is_shown(fleet: Fleet) -> bool:
        member = fleet.members.get(worker)
        return member is not None and member.presence.order > order and member.presence.state is wanted

    reading.view.wait_for(lambda fleet: is_gone(fleet) or is_shown(fleet), seconds)
    fleet = reading.view.fleet
    if is_gone(fleet):
        raise gone_meanwhile(worker)
    if not is_shown(fleet):
        raise unconfirmed(worker, seconds, command.expires_at, f"the operator's public key {command.pub_key}")


def _to_json(command: Command, *, is_shown: bool) -> dict[str, Any]:
    return {
        "object": "fleet_command",
        "id": command.command_id,
        "worker_id": command.target,
        "action": command.action.value,
        "expires_at": command.expires_at,
        "is_shown": is_shown,
    }
