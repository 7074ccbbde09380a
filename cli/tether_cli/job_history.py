"""The history of a job, as `tether jobs show` prints it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from tether.deaths import death_of_attempt, end_in_words
from tether.jobs import JobState
from tether_cli.terminal.asides import say_aside
from tether_cli.terminal.printable import one_line
from tether_cli.terminal.tables import print_table, time_text

if TYPE_CHECKING:
    from tether.histories import AttemptRecord, JobHistory

_COLUMNS = ("ATTEMPT", "WORKER", "POOL", "BEGAN", "ENDED", "TOKENS", "WHY", "THEN")

_CAUSES = {
    "lease_lost": "its worker was not heard of any more",
    "released": "its worker handed it over",
    "died": "its worker's process died",
    "gone": "its worker's process ended",
    "revoked": "its worker's key was revoked",
    "withdrawn": "it was taken back to be placed anew",
    "superseded": "it was placed anew",
    "sealed": "the job had ended",
    "unreadable": "Redis held something damaged",
}
_WENT = {"pool": "back to its pool", "end": "-"}


def history_lines(history: JobHistory) -> list[tuple[str, str]]:
    """What is said of where a job is, in pairs of name and value."""
    lines = []
    if not history.state.is_final:
        lines.append(("since", time_text(history.since)))
    if history.dispatch:
        lines.append(("dispatch", str(history.dispatch)))
    if history.state is JobState.EXPIRED and not history.attempts and not history.dropped:
        lines.append(("why", "no worker began it in time"))
    if history.due_at is not None:
        lines.append(("tried again", time_text(history.due_at)))
    return lines


def print_attempts(attempts: Sequence[AttemptRecord], dropped: int = 0) -> None:
    """Print a table of attempts; nothing where there is none.

    Args:
      dropped: Number of further ones.
    """
    if attempts:
        click.echo()
        newest = attempts[-1].dispatch
        print_table(_COLUMNS, [_row(each, is_last=each.dispatch == newest) for each in attempts])
    if dropped:
        say_aside(f"{dropped} further attempts are not told.")


def _row(record: AttemptRecord, *, is_last: bool) -> tuple[str, ...]:
    start = "?" if record.start_offset is None else str(record.start_offset)
    cells = (
        f"{record.dispatch}.{record.attempt}",
        record.worker or "-",
        record.pool or "-",
        time_text(record.started_at),
        time_text(record.ended_at),
        f"{start}-{record.offset}",
        _why(record),
        _then(record, is_last=is_last),
    )
    return tuple(map(one_line, cells))


def _then(record: AttemptRecord, *, is_last: bool) -> str:
    """Where the job went.

    Args:
      is_last: Whether no later dispatch is known: it waits for one, or has ended, as its state says.
    """
    if record.went == "database":
        return "-" if is_last else "tried again" if record.outcome == "failed" else "placed anew"
    return _WENT.get(record.went or "", record.went or "-")


def _why(record: AttemptRecord) -> str:
    cause = record.cause or record.outcome or "-"
    told = _CAUSES.get(cause, cause)
    if record.error is not None:
        told = f"{told}: {record.error.code}"
    death = death_of_attempt(record.evidence)
    if death is not None:
        told = f"its worker's process {end_in_words(death)}"
    elif record.evidence:
        known = ", ".join(f"{name} {value}" for name, value in sorted(record.evidence.items()))
        told = f"{told} ({known})"
    return told
