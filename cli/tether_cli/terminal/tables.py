"""What verbs print: a table for people, lines for programs, JSON for both."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import click


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows: as a table on a terminal, else as lines with tabs, the names of the columns first."""
    if not sys.stdout.isatty():
        for row in (columns, *rows):
            click.echo("\t".join(row))
        return
    # Loading it takes longer than most verbs.
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=box.SIMPLE_HEAD)
    for row in rows:
        # A name may look like markup.
        table.add_row(*map(Text, row))
    Console().print(table)


def fitting_columns(
    columns: Sequence[str], rows: Sequence[Sequence[str]], left_out_first: Sequence[str], width: int
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The columns for which a terminal has room, and the rows with these alone.

    Args:
      left_out_first: The columns that it does without, in this order.
      width: Characters of a line of the terminal.
    """
    places = list(range(len(columns)))
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    for name in left_out_first:
        # Each cell has three characters around it, the last one four.
        if sum(widths[place] + 3 for place in places) + 1 > width:
            places.remove(columns.index(name))
    return (
        tuple(columns[place] for place in places),
        [tuple(cells[place] for place in places) for cells in rows],
    )


def print_json(document: object) -> None:
    """Print one document."""
    click.echo(json.dumps(document, indent=2))


def time_text(milliseconds: int | None) -> str:
    """A time since the epoch as text in UTC, to the second; ``-`` for none."""
    if milliseconds is None:
        return "-"
    return datetime.fromtimestamp(milliseconds // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
