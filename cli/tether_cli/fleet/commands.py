"""`tether fleet drain`, `cordon` and `uncordon`: signed commands to one worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from tether.clocks import wall_clock_ms
from tether_cli.acts import act_of_user, audit_of
from tether_cli.admin_store import admin_settings
from tether_cli.fleet.last_workers import confirm_last, yes_option
from tether_cli.options.values import read_duration
from tether_cli.terminal.tables import print_json, time_text

if TYPE_CHECKING:
    from tether.core.fleet_reading import FleetReading
    from tether.core.pool_backlogs import LastWorkerPool
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
    return verb


@click.command()
@_options
@yes_option
def drain(worker: str, waits: bool, timeout: float | None, is_json: bool, is_sure: bool) -> None:
    """Stop assigning jobs to a worker, and hand over those that do not finish in time.

    Its process keeps running: `tether fleet uncordon` lets it take jobs again. Jobs that do not finish
    within its `worker.drain_timeout` continue on another worker, at the same token. Where it is the last
    worker of a pool, that is said first, with what becomes of the jobs that wait there; a terminal is asked.

    WORKER is a worker id, a public key, or a name if only one worker has it.
    """
    _tell("drain", worker, waits=waits, timeout=timeout, is_json=is_json, is_sure=is_sure)


@click.command()
@_options
@yes_option
def cordon(worker: str, waits: bool, timeout: float | None, is_json: bool, is_sure: bool) -> None:
    """Stop assigning jobs to a worker. Running jobs continue.

    Where it is the last worker of a pool, that is said first, with what becomes of the jobs that wait there;
    a terminal is asked.

    WORKER is a worker id, a public key, or a name if only one worker has it.
    """
    _tell("cordon", worker, waits=waits, timeout=timeout, is_json=is_json, is_sure=is_sure)


@click.command()
@_options
def uncordon(worker: str, waits: bool, timeout: float | None, is_json: bool) -> None:
    """Resume assigning jobs to a worker.

    WORKER is a worker id, a public key, or a name if only one worker has it.
    """
    _tell("uncordon", worker, waits=waits, timeout=timeout, is_json=is_json, is_sure=True)


def _tell(
    verb: str, worker: str, *, waits: bool, timeout: float | None, is_json: bool, is_sure: bool
) -> None:
    from tether.core.fleet_commands import tell_worker
    from tether.core.fleet_reading import meant_member, open_fleet
    from tether.core.pool_backlogs import last_worker_of
    from tether.discovery.commands.command import Action

    if not waits and timeout is not None:
        raise click.UsageError("--timeout cannot be combined with --no-wait.")
    action = Action(verb)
    settings = admin_settings()
    with open_fleet(settings) as reading:
        names = reading.names
        member = meant_member(worker, reading.view.fleet, names)
        last: Sequence[LastWorkerPool] = ()
        if action is not Action.UNCORDON:
            last = last_worker_of(reading, member.presence.worker_id)
            confirm_last(last, settings, is_sure=is_sure, is_silent=is_json)
        with audit_of(settings) as log:
            act = act_of_user(f"fleet.{verb}", member.presence.worker_id)
            command = log.elsewhere(act, lambda: tell_worker(reading, member, action, now_ms=wall_clock_ms()))
        if waits:
            _wait(reading, member, command, WAIT_SECONDS if timeout is None else timeout)
    worker_id = member.presence.worker_id
    if is_json:
        print_json({**_to_json(command, is_shown=waits), "last_of": [vars(one) for one in last]})
        return
    name = names.get(worker_id)
    shown = f"Worker {worker_id} ({name})" if name else f"Worker {worker_id}"
    told = f"{shown} {_DONE[verb]}." if waits else f"{shown}: the command {verb} was sent."
    click.echo(told, err=True)


def _wait(reading: FleetReading, member: Member, command: Command, seconds: float) -> None:
    """Wait until the worker announces that it does what it was told.

    Raises:
      WorkerNotFound: It is gone meanwhile, or was started again.
      CommandUnanswered: It does not within so many seconds.
    """
    from tether.discovery.announcements.presence import WorkerState
    from tether.discovery.commands.command import Action
    from tether.errors import CommandUnanswered, WorkerNotFound

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
        raise WorkerNotFound(
            f"worker {worker} stopped, went silent or was restarted before it carried out the command: "
            "`tether fleet list` shows the live workers"
        )
    if not is_shown(fleet):
        raise CommandUnanswered(
            f"worker {worker} did not confirm the command within {seconds:g} s, and may still carry it out "
            f"until {time_text(command.expires_at)}. If its log says that the command was rejected, add the "
            f"operator's public key {command.pub_key} to its presence.operator_keys"
        )


def _to_json(command: Command, *, is_shown: bool) -> dict[str, Any]:
    return {
        "object": "fleet_command",
        "id": command.command_id,
        "worker_id": command.target,
        "action": command.action.value,
        "expires_at": command.expires_at,
        "is_shown": is_shown,
    }
