"""`tether fleet drain`, `cordon` and `uncordon`: signed commands to one worker."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from tether_cli.admin_store import admin_settings
from tether_cli.parameters import read_duration
from tether_cli.tables import print_json, time_text

if TYPE_CHECKING:
    from tether.discovery.commands.command import Action, Command
    from tether.discovery.fleet.fleet import Fleet, Member
    from tether_cli.fleet_reading import FleetReading

WAIT_SECONDS = 15.0
_ID_BYTES = 16
_DONE = {
    "drain": "drains: it takes no more jobs, and hands over what does not end in time",
    "cordon": "takes no more jobs; what it runs goes on",
    "uncordon": "takes jobs again",
}


def _options(verb: Callable[..., None]) -> Callable[..., None]:
    """What the three verbs share."""
    for option in (
        click.option("--json", "is_json", is_flag=True, help="Print one JSON document."),
        click.option(
            "--timeout", metavar="TIME", callback=read_duration, help="Longest wait; 15s by default."
        ),
        click.option(
            "--wait/--no-wait", "waits", default=True, help="Wait until the worker shows the effect."
        ),
        click.argument("worker", metavar="WORKER"),
    ):
        verb = option(verb)
    return verb


@click.command()
@_options
def drain(worker: str, waits: bool, timeout: float | None, is_json: bool) -> None:
    """Let a worker take no more jobs, and hand over those that do not end in time.

    Its process stays: `tether fleet uncordon` lets it take jobs again. What does not end within its
    `worker.drain_timeout` goes on elsewhere, at the same token.

    WORKER is the worker's id, its public key, or its name where only one has it.
    """
    _tell("drain", worker, waits=waits, timeout=timeout, is_json=is_json)


@click.command()
@_options
def cordon(worker: str, waits: bool, timeout: float | None, is_json: bool) -> None:
    """Let a worker take no more jobs. What it runs goes on.

    WORKER is the worker's id, its public key, or its name where only one has it.
    """
    _tell("cordon", worker, waits=waits, timeout=timeout, is_json=is_json)


@click.command()
@_options
def uncordon(worker: str, waits: bool, timeout: float | None, is_json: bool) -> None:
    """Let a worker take jobs again.

    WORKER is the worker's id, its public key, or its name where only one has it.
    """
    _tell("uncordon", worker, waits=waits, timeout=timeout, is_json=is_json)


def _tell(verb: str, worker: str, *, waits: bool, timeout: float | None, is_json: bool) -> None:
    from tether.discovery.commands.command import Action
    from tether_cli.fleet_reading import meant_member, open_fleet

    if not waits and timeout is not None:
        raise click.UsageError("--timeout is how long to wait: it does not go with --no-wait.")
    action = Action(verb)
    settings = admin_settings()
    with open_fleet(settings) as reading:
        names = reading.names
        member = meant_member(worker, reading.view.fleet, names)
        command = _send(reading, member, action)
        if waits:
            _wait(reading, member, command, WAIT_SECONDS if timeout is None else timeout)
    worker_id = member.presence.worker_id
    if is_json:
        print_json(_to_json(command, is_shown=waits))
        return
    name = names.get(worker_id)
    shown = f"Worker {worker_id} ({name})" if name else f"Worker {worker_id}"
    told = f"{shown} {_DONE[verb]}." if waits else f"{shown} was told to {verb}."
    click.echo(told, err=True)


def _send(reading: FleetReading, member: Member, action: Action) -> Command:
    """Sign a command to a worker, and put it where the worker finds it."""
    import redis

    from tether.broker.connections import address_of
    from tether.discovery.commands.command import command_to, sign_command
    from tether.discovery.commands.inbox import send_command
    from tether.discovery.commands.operator_key import operator_key
    from tether.errors import BrokerUnavailable

    key = operator_key(reading.settings.presence.identity_dir)
    command = command_to(
        member.presence, action, key, command_id=os.urandom(_ID_BYTES).hex(), now_ms=_now_ms()
    )
    try:
        send_command(reading.client, reading.keys, command, sign_command(command, key))
    except redis.RedisError as error:
        raise BrokerUnavailable(
            f"Redis at {address_of(reading.client)} does not take the command: {str(error).rstrip('.')}"
        ) from None
    return command


def _wait(reading: FleetReading, member: Member, command: Command, seconds: float) -> None:
    """Wait until the worker announces that it does what it was told.

    Raises:
      WorkerNotFound: It is gone meanwhile, or was started again.
      CommandUnanswered: It does not within so many seconds.
    """
    from tether.discovery.announcements.presence import WorkerState
    from tether.discovery.commands.command import Action
    from tether.errors import CommandUnanswered, WorkerNotFound

    wanted = WorkerState.SERVING if command.action is Action.UNCORDON else WorkerState.DRAINING
    worker, order = command.target, member.presence.order

    def is_gone(fleet: Fleet) -> bool:
        found = fleet.members.get(worker)
        return found is None or found.presence.boot_counter != order.boot_counter

    def is_shown(fleet: Fleet) -> bool:
        found = fleet.members.get(worker)
        return found is not None and found.presence.order > order and found.presence.state is wanted

    reading.view.wait_for(lambda fleet: is_gone(fleet) or is_shown(fleet), seconds)
    fleet = reading.view.fleet
    if is_gone(fleet):
        raise WorkerNotFound(
            f"worker {worker} stopped, is heard of no more or was started again before it did what it was "
            "told: `tether fleet list` shows what there is now"
        )
    if not is_shown(fleet):
        raise CommandUnanswered(
            f"worker {worker} does not show within {seconds:g} s that it did what it was told, and may do it "
            f"until {time_text(command.expires_at)}. Where its log says that the command is refused, add the "
            f"operator's key {command.pub_key} to its presence.operator_keys"
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


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
