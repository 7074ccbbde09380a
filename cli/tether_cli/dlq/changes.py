"""`tether dlq retry` and `purge`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from tether_cli.dlq.filters import LetterChoice, everybody_option, where_option
from tether_cli.dlq.messages import purge_queue, queue_option, retry_messages
from tether_cli.dlq.reading import json_option
from tether_cli.options.connection import Connection, connection_options
from tether_cli.terminal.asides import say_aside
from tether_cli.terminal.output import open_output, print_line
from tether_cli.terminal.tables import print_json
from tether_cli.terminal.waits import telling_of_waits

if TYPE_CHECKING:
    from tether.client.dead_letters import DeadLetters
    from tether.dead_letters import LetterRetry

NOT_ALL_RETRIED = 1
"""The exit status where some letters could not be retried."""


@click.command()
@click.argument("tokens", metavar="[TOKEN]...", nargs=-1)
@where_option
@click.option("--force", is_flag=True, help="Also letters that say that a retry would fail.")
@everybody_option
@queue_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line for each letter.")
@connection_options
def retry(
    connection: Connection,
    tokens: tuple[str, ...],
    where: dict[str, Any] | None,
    force: bool,
    all_tenants: bool,
    queue: str | None,
    as_json: bool,
) -> None:
    """Retry dead jobs as new ones: those with these retry tokens, or all open ones that match --where.

    The new job has the same correlation id. A token makes one job only: used again, it tells that job. With
    --where, one that cannot be retried stops no other: what came of each is printed, and the exit status is
    1 if some could not be.
    """
    if bool(tokens) == (where is not None):
        raise click.UsageError("Give retry tokens, or --where; `--where all` retries every open letter.")
    if queue is not None:
        failed = retry_messages(connection, queue, tokens, where, force=force, as_json=as_json)
        click.get_current_context().exit(NOT_ALL_RETRIED if failed else 0)
    with (
        telling_of_waits(open_output(is_silent=as_json)[1], ask=connection.why_slow),
        connection.open() as client,
    ):
        if where is None:
            letters = client.every_dead_letter if all_tenants else client.dead_letters
            status = _retry_tokens(letters, tokens, force=force, as_json=as_json)
            click.get_current_context().exit(status)
        choice = LetterChoice(**where, all_tenants=all_tenants)
        counts = _retry_where(choice.letters_of(client), choice, force=force, as_json=as_json)
    retried, failed = counts
    if not as_json:
        say_aside(f"{retried} retried, {failed} not")
    click.get_current_context().exit(NOT_ALL_RETRIED if failed else 0)


def _retry_tokens(letters: DeadLetters, tokens: Sequence[str], *, force: bool, as_json: bool) -> int:
    """Retry each: one that cannot be retried stops no other. Return the exit status of the first of these."""
    from tether.errors import Forbidden, RetryTokenUnknown, TetherError, Unauthenticated
    from tether_cli.exit_status import exit_for, tell

    status = 0
    for token in tokens:
        try:
            retried = letters.retry(token, force=force)
        except TetherError as error:
            if error.retryable or isinstance(error, Forbidden | Unauthenticated):
                # What comes after it would be refused for the same reason.
                raise
            if isinstance(error, RetryTokenUnknown) and _is_job_id(token):
                error = RetryTokenUnknown(
                    f"{token} is a job's id and no retry token: `tether dlq show {token}` tells the token"
                )
            elif len(tokens) > 1:
                error = type(error)(f"{token}: {error}")
            ending = exit_for(error)
            status = status or ending.status
            tell(ending, as_json=as_json)
        else:
            _tell(retried, as_json=as_json)
    return status


def _is_job_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _retry_where(
    letters: DeadLetters, choice: LetterChoice, *, force: bool, as_json: bool
) -> tuple[int, int]:
    retried = failed = 0
    for outcome in letters.retry_where(force=force, **choice.options()):
        _tell(outcome, as_json=as_json)
        retried += outcome.error is None
        failed += outcome.error is not None
    return retried, failed


def _tell(outcome: LetterRetry, *, as_json: bool) -> None:
    from tether.codec import value_to_json

    if as_json:
        print_line(value_to_json(outcome))
    elif outcome.error is not None:
        click.echo(f"{outcome.job_id} not retried: {outcome.error.message} ({outcome.error.code})")
    else:
        again = "" if outcome.is_new else f" (the token was used before; that job is {outcome.state})"
        click.echo(f"{outcome.job_id} retried as {outcome.retried_as}{again}")


@click.command()
@where_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@everybody_option
@queue_option
@json_option
@connection_options
def purge(
    connection: Connection,
    where: dict[str, Any] | None,
    yes: bool,
    all_tenants: bool,
    queue: str | None,
    as_json: bool,
) -> None:
    """Purge open dead letters that match --where: their retry tokens make no jobs any more.

    Their jobs stay until jobs.retention has passed. This asks first, unless --yes is given.
    """
    if where is None:
        raise click.UsageError("Say which letters with --where; `--where all` purges every open one.")
    if queue is not None:
        purge_queue(connection, queue, where, is_sure=yes, as_json=as_json)
        return
    choice = LetterChoice(**where, all_tenants=all_tenants)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("Purging asks first, and standard input is no terminal: give --yes.")
        which = "all open dead letters" if choice.is_all else "the open dead letters that match"
        click.confirm(f"Purge {which}? Their retry tokens make no jobs any more.", abort=True, err=True)
    with (
        telling_of_waits(open_output(is_silent=as_json)[1], ask=connection.why_slow),
        connection.open() as client,
    ):
        count = choice.letters_of(client).purge(**choice.options())
    if as_json:
        print_json({"purged": count})
    else:
        click.echo(f"{count} purged")
