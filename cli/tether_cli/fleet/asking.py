"""How the verbs about workers ask: for how long, and what is said meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from tether_cli.options.connection import Connection
from tether_cli.options.values import read_duration
from tether_cli.terminal.output import open_output
from tether_cli.terminal.waits import telling_of_waits

if TYPE_CHECKING:
    from tether.client.http.operator import OperatorClient

timeout_option = click.option(
    "--timeout",
    "within",
    metavar="TIME",
    callback=read_duration,
    help="Maximum time for the whole command.  [default: calls to a gateway are tried for 30s]",
)


@contextlib.contextmanager
def asking_operator(gateway: Connection, within: float | None, *, is_json: bool) -> Iterator[OperatorClient]:
    """An operator's client, and a notice where an answer is slow, with the reason.

    Args:
      within: Seconds for all of it; None where nobody said.
    """
    notes = open_output(is_silent=is_json)[1]
    after = None if within is None else min(notes.patience, within / 2)
    with (
        telling_of_waits(notes, after=after, ask=lambda: gateway.why_slow(within)),
        gateway.open_operator(within) as client,
    ):
        yield client
