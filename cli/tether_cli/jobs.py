"""`tether jobs`: list, show, follow and cancel jobs."""

from __future__ import annotations

import itertools
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from tether.jobs import JobState
from tether_cli.client_options import Connection, connection_options
from tether_cli.endings import ending_of, tell
from tether_cli.frame import VerbGroup
from tether_cli.output import open_output, telling_of_waits
from tether_cli.parameters import read_duration, read_labels, read_moment
from tether_cli.printable import one_line
from tether_cli.tables import print_json, print_table, time_text

if TYPE_CHECKING:
    from tether.client.backend import JobStatus

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@click.group(cls=VerbGroup)
def jobs() -> None:
    """List, show, follow and cancel jobs."""


@jobs.command("list")
@click.option(
    "--state",
    "states",
    type=click.Choice([state.value for state in JobState]),
    multiple=True,
    help="Jobs in this state; may be repeated.",
)
@click.option("--model", help="Jobs of this model.")
@click.option(
    "--label",
    "-l",
    "labels",
    multiple=True,
    metavar="NAME=VALUE",
    callback=read_labels,
    help="Jobs with this mark; may be repeated, all must be there.",
)
@click.option(
    "--since",
    metavar="TIME",
    callback=read_moment,
    help="Made since then: so long ago (1h), or a time in ISO 8601.",
)
@click.option("--until", metavar="TIME", callback=read_moment, help="Made before then.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="Most jobs.")
@as_json_option
@connection_options
def list_jobs(
    connection: Connection,
    states: tuple[str, ...],
    model: str | None,
    labels: dict[str, str],
    since: datetime | None,
    until: datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """List your jobs, the newest first."""
    with telling_of_waits(open_output(is_silent=as_json)[1]), connection.open() as client:
        found = client.jobs(
            state=states, model=model, labels=labels, created_after=since, created_before=until
        )
        statuses = list(itertools.islice(found, limit))
    if as_json:
        from tether.client.documents import status_to_json

        print_json([status_to_json(status) for status in statuses])
        return
    now_ms = time.time_ns() // 1_000_000
    rows = [_row(status, now_ms) for status in statuses]
    print_table(("JOB", "STATE", "MODEL", "PRIORITY", "TOKENS", "AGE", "LABELS"), rows)


@jobs.command()
@click.argument("job_id", metavar="ID")
@as_json_option
@connection_options
def show(connection: Connection, job_id: str, as_json: bool) -> None:
    """Show what is known of a job. Its text is what `tether jobs watch` prints."""
    from tether.client.documents import status_to_json

    with telling_of_waits(open_output(is_silent=as_json)[1]), connection.open() as client:
        status = client.job(job_id).status()
    if as_json:
        print_json(status_to_json(status))
        return
    lines = _lines(status)
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        click.echo(f"{name:<{width}}  {one_line(value)}")


@jobs.command()
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
@as_json_option
@connection_options
def cancel(connection: Connection, job_ids: tuple[str, ...], as_json: bool) -> None:
    """Ask for the end of jobs. A running one ends when its worker hears of it.

    Asking again, or after the end, changes nothing. Where one cannot be cancelled, the others are all the
    same; the exit status is that of the first that cannot.
    """
    from tether.errors import JobNotFound

    answers: list[dict[str, Any]] = []
    failed = 0
    with telling_of_waits(open_output(is_silent=as_json)[1]), connection.open() as client:
        for job_id in job_ids:
            try:
                state = client.job(job_id).cancel().value
            except JobNotFound as error:
                ending = ending_of(error)
                failed = failed or ending.status
                answers.append({"job_id": job_id, **(ending.document or {})})
                if not as_json:
                    tell(ending, as_json=False)
                continue
            answers.append({"object": "job.state", "job_id": job_id, "state": state})
            if not as_json:
                click.echo(f"{job_id} {state}")
    if as_json:
        print_json(answers)
    click.get_current_context().exit(failed)


@jobs.command()
@click.argument("job_id", metavar="ID")
@click.option("--offset", type=click.IntRange(0, 2**32 - 1), default=0, help="Begin after so many tokens.")
@click.option("--json", "--events", "as_events", is_flag=True, help="Print each event as one line of JSON.")
@click.option(
    "--timeout", metavar="TIME", callback=read_duration, help="Longest wait for its end. The job goes on."
)
@connection_options
def watch(connection: Connection, job_id: str, offset: int, as_events: bool, timeout: float | None) -> None:
    """Print a job's text from its start, as it is made, until it ends.

    The exit status is the job's. Ctrl-C stops watching; the job goes on.
    """
    from tether_cli.following import events_of, going_on, show_events, show_text

    output, notes = open_output(is_silent=as_events)
    with connection.open() as client:
        events = events_of(client.job(job_id), offset=offset, timeout=timeout)
        with going_on(job_id, notes, is_accepted=False):
            if as_events:
                show_events(job_id, events)
            else:
                show_text(job_id, events, offset, output, notes)


def _row(status: JobStatus, now_ms: int) -> tuple[str, ...]:
    labels = " ".join(f"{name}={value}" for name, value in sorted(status.labels.items()))
    tokens = str(status.output_tokens or status.offset)
    shown = (status.job_id, status.state.value, status.model, status.priority, tokens)
    return (*map(one_line, shown), age_text(now_ms - status.created_at), one_line(labels) or "-")


def age_text(milliseconds: int) -> str:
    """A span in its greatest unit, as in ``3h``; clocks that differ make none that is negative."""
    seconds = max(milliseconds, 0) // 1000
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _lines(status: JobStatus) -> list[tuple[str, str]]:
    lines = [
        ("job", status.job_id),
        ("state", status.state.value),
        ("model", status.model),
        ("priority", str(status.priority)),
        ("pool", status.pool or "-"),
        ("made", time_text(status.created_at)),
        ("ended", time_text(status.finished_at)),
        ("failed attempts", str(status.attempts)),
        ("input tokens", str(status.input_tokens)),
        ("output tokens", str(status.output_tokens or status.offset)),
        ("correlation id", status.correlation_id),
        ("retry token", status.retry_token),
        *((f"label {one_line(name)}", value) for name, value in sorted(status.labels.items())),
    ]
    if status.error is not None:
        lines.append(("error", f"{status.error.code}: {status.error.message}"))
    return lines
