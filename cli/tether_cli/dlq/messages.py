"""`tether dlq` with `--queue` or `--queues`: dead messages of plain actors."""

from __future__ import annotations

import base64
import itertools
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from tether.clocks import wall_clock_ms
from tether_cli.dlq.filters import WHERE_NAMES
from tether_cli.jobs import age_text
from tether_cli.options.connection import Connection
from tether_cli.terminal.asides import say_aside
from tether_cli.terminal.output import open_output, print_line
from tether_cli.terminal.printable import one_line, printable
from tether_cli.terminal.tables import print_json, print_table, time_text
from tether_cli.terminal.waits import telling_of_waits

if TYPE_CHECKING:
    from tether.dead_messages import DeadMessage


def queue_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--queue``."""
    return click.option(
        "--queue",
        metavar="NAME",
        help="Dead messages of plain actors in this queue, instead: needs the scope operator.",
    )(command)


def list_queues(connection: Connection, *, as_json: bool) -> None:
    """Print which queues have dead messages."""
    from tether.codec import value_to_json

    with (
        telling_of_waits(open_output(is_silent=as_json)[1], ask=connection.why_slow),
        connection.open() as client,
    ):
        queues = client.dead_messages.queues()
    if as_json:
        print_json([value_to_json(queue) for queue in queues])
        return
    now_ms = wall_clock_ms()
    rows = [
        (
            queue.queue,
            str(queue.count),
            "-" if queue.oldest_at is None else f"{age_text(now_ms - queue.oldest_at)} ago",
            "until removed" if queue.retention_ms is None else f"for {age_text(queue.retention_ms)}",
        )
        for queue in queues
    ]
    print_table(("QUEUE", "DEAD", "OLDEST", "KEPT"), rows)


def print_dead_messages(connection: Connection, queue: str, limit: int, *, as_json: bool) -> None:
    """Print a queue's dead messages, the newest first."""
    from tether.codec import value_to_json

    notes = open_output(is_silent=as_json)[1]
    with telling_of_waits(notes, ask=connection.why_slow), connection.open() as client:
        found = list(itertools.islice(client.dead_messages.list(queue), limit))
    if as_json:
        print_json([value_to_json(message) for message in found])
        return
    now_ms = wall_clock_ms()
    print_table(
        ("ACTOR", "DIED", "BYTES", "ERROR", "RETRY TOKEN"), [_row(message, now_ms) for message in found]
    )
    expiry = found[-1].expires_at if found else None
    if found:
        until = (
            "they do not expire" if expiry is None else f"the oldest of these expires at {time_text(expiry)}"
        )
        notes.warning(f"{len(found)} shown; {until}")


def _row(message: DeadMessage, now_ms: int) -> tuple[str, ...]:
    cells = (
        message.actor,
        f"{age_text(now_ms - message.died_at)} ago",
        None if message.size is None else str(message.size),
        message.problem or message.error,
        message.retry_token,
    )
    return tuple(one_line(cell or "") or "-" for cell in cells)


def print_dead_message(connection: Connection, queue: str, retry_token: str, *, as_json: bool) -> None:
    """Print one dead message."""
    from tether.codec import value_to_json

    with (
        telling_of_waits(open_output(is_silent=as_json)[1], ask=connection.why_slow),
        connection.open() as client,
    ):
        message = client.dead_messages.show(queue, retry_token)
    if as_json:
        print_json(value_to_json(message))
        return
    for line in dead_message_lines(message):
        click.echo(line)


def dead_message_lines(message: DeadMessage) -> list[str]:
    """A dead message for a person: what is known of it, then its JSON, or else its bytes in base64."""
    facts = {
        "queue": message.queue,
        "actor": message.actor,
        "message id": message.message_id,
        "retry token": message.retry_token,
        "died": time_text(message.died_at),
        "expires": "never" if message.expires_at is None else time_text(message.expires_at),
        "bytes": None if message.size is None else str(message.size),
        "error": message.error,
        "problem": message.problem,
    }
    width = max(map(len, facts))
    lines = [f"{name:<{width}}  {one_line(value or '-')}" for name, value in facts.items()]
    if message.payload:
        try:
            content = json.dumps(json.loads(base64.b64decode(message.payload)), indent=2, ensure_ascii=False)
        except ValueError:
            content = message.payload
        lines += ["", printable(content)]
    return lines


def export_messages(connection: Connection, queue: str) -> None:
    """Print all dead messages of a queue with their bytes, each as JSON on its line."""
    from tether.codec import value_to_json

    with telling_of_waits(open_output()[1], ask=connection.why_slow), connection.open() as client:
        for message in client.dead_messages.list(queue, payloads=True):
            print_line(value_to_json(message))


def retry_messages(
    connection: Connection,
    queue: str,
    tokens: tuple[str, ...],
    where: dict[str, Any] | None,
    *,
    force: bool,
    as_json: bool,
) -> int:
    """Retry dead messages and print what came of each. Return how many could not be retried."""
    from tether.codec import value_to_json
    from tether.errors import LetterDamaged, LetterNotRetryable, RetryTokenUnknown

    after, before = _times(where)
    failed = 0
    with (
        telling_of_waits(open_output(is_silent=as_json)[1], ask=connection.why_slow),
        connection.open() as client,
    ):
        letters = client.dead_messages
        if where is not None:
            # All are looked up first: one that fails at once comes back, and is not tried for ever.
            tokens = tuple(each.retry_token for each in letters.list(queue) if after <= each.died_at < before)
        for token in tokens:
            try:
                retried = letters.retry(queue, token, force=force)
            except (LetterDamaged, LetterNotRetryable, RetryTokenUnknown) as error:
                if where is None:
                    raise
                failed += 1
                say_aside(f"{token} not retried: {error} ({error.code})")
                continue
            if as_json:
                print_line(value_to_json(retried))
            else:
                click.echo(
                    f"{token} {'is back in' if retried.is_new else 'was put back before into'} {queue}"
                )
    return failed


def purge_queue(
    connection: Connection, queue: str, where: dict[str, Any], *, is_sure: bool, as_json: bool
) -> None:
    """Remove dead messages of a queue, and print how many."""
    if "since" in where:
        raise click.UsageError("With --queue the oldest are purged: --where until=TIME, or --where all.")
    _times(where)
    if not is_sure:
        if not sys.stdin.isatty():
            raise click.UsageError("Purging asks first, and standard input is no terminal: give --yes.")
        click.confirm(f"Delete dead messages of queue {queue}? They are gone then.", abort=True, err=True)
    with (
        telling_of_waits(open_output(is_silent=as_json)[1], ask=connection.why_slow),
        connection.open() as client,
    ):
        count = client.dead_messages.purge(queue, died_before=where.get("until"))
    if as_json:
        print_json({"purged": count})
    else:
        click.echo(f"{count} purged")


def _times(where: dict[str, Any] | None) -> tuple[float, float]:
    """When what is meant died: from, and before, in milliseconds since the epoch."""
    given = where or {}
    if others := sorted(given.keys() - {"since", "until"}):
        raise click.UsageError(
            f"With --queue, --where takes since and until, or `all`: {others[0]} is of jobs' letters "
            f"({', '.join(WHERE_NAMES)})."
        )
    after = given["since"].timestamp() * 1000 if "since" in given else float("-inf")
    before = given["until"].timestamp() * 1000 if "until" in given else float("inf")
    return after, before
