"""`tether dlq list`, `show` and `export`."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import click

from tether.clocks import wall_clock_ms
from tether_cli.dlq.filters import LetterChoice, everybody_option, filter_options, refuse_filters
from tether_cli.dlq.messages import (
    export_messages,
    list_queues,
    print_dead_message,
    print_dead_messages,
    queue_option,
)
from tether_cli.dlq.texts import letter_lines, letter_row, summary_text
from tether_cli.job_history import print_attempts
from tether_cli.options.connection import Connection, connection_options
from tether_cli.terminal.output import open_output, print_line
from tether_cli.terminal.printable import one_line
from tether_cli.terminal.tables import print_json, print_table
from tether_cli.terminal.waits import telling_of_waits

if TYPE_CHECKING:
    from tether.dead_letters import DeadLetter

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@click.command("list")
@filter_options
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=50,
    show_default=True,
    help="Maximum number of letters.",
)
@queue_option
@click.option("--queues", is_flag=True, help="The queues of plain actors that have dead messages, instead.")
@json_option
@connection_options
def list_letters(
    connection: Connection, choice: LetterChoice, limit: int, queue: str | None, queues: bool, as_json: bool
) -> None:
    """List dead letters, newest first, and say when they expire."""
    if queues or queue is not None:
        refuse_filters(choice)
    if queues:
        list_queues(connection, as_json=as_json)
        return
    if queue is not None:
        print_dead_messages(connection, queue, limit, as_json=as_json)
        return
    from tether.client.letter_documents import letter_to_json
    from tether.dead_letters import WHY

    notes = open_output(is_silent=as_json)[1]
    with telling_of_waits(notes, ask=connection.why_slow), connection.open() as client:
        letters = choice.letters_of(client)
        found: list[DeadLetter] = list(itertools.islice(letters.list(**choice.options()), limit))
        summary = None if as_json else letters.summary()
    if as_json:
        print_json([letter_to_json(letter) for letter in found])
        return
    now_ms = wall_clock_ms()
    whose = ("TENANT",) if choice.all_tenants or choice.tenant else ()
    rows = [letter_row(letter, now_ms, with_tenant=bool(whose)) for letter in found]
    print_table(("JOB", *whose, "DIED", "REASON", "RETRYABLE", "MODEL", "ATTEMPTS", "RETRY TOKEN"), rows)
    if choice.reason is not None and choice.reason not in WHY and not found:
        notes.warning(f"no letter has the reason {choice.reason!r}: reasons are {', '.join(sorted(WHY))}")
    if summary is not None:
        notes.warning(summary_text(summary, now_ms))
    if not found and not whose:
        notes.warning("of the tenant of this API key: an operator's key sees all tenants' with --all-tenants")


@click.command()
@click.argument("job_id", metavar="ID")
@everybody_option
@queue_option
@json_option
@connection_options
def show(connection: Connection, job_id: str, all_tenants: bool, queue: str | None, as_json: bool) -> None:
    """Show the dead letter of a job: why it died, its attempts, its retry token and the chain of retries.

    With --queue, ID is the retry token of a dead message.
    """
    if queue is not None:
        print_dead_message(connection, queue, job_id, as_json=as_json)
        return
    from tether.client.letter_documents import letter_to_json

    with (
        telling_of_waits(open_output(is_silent=as_json)[1], ask=connection.why_slow),
        connection.open() as client,
    ):
        letters = client.every_dead_letter if all_tenants else client.dead_letters
        letter = letters.show(job_id)
    if as_json:
        print_json(letter_to_json(letter))
        return
    lines = letter_lines(letter)
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        click.echo(f"{name:<{width}}  {one_line(value)}")
    print_attempts(letter.attempts, letter.dropped)


@click.command()
@filter_options
@queue_option
@connection_options
def export(connection: Connection, choice: LetterChoice, queue: str | None) -> None:
    """Print all dead letters that match, each as one JSON object on its line.

    They are fetched and printed a hundred at a time, however many there are.
    """
    if queue is not None:
        refuse_filters(choice)
        export_messages(connection, queue)
        return
    from tether.client.letter_documents import letter_to_json

    with telling_of_waits(open_output()[1], ask=connection.why_slow), connection.open() as client:
        for letter in choice.letters_of(client).list(**choice.options()):
            print_line(letter_to_json(letter))
