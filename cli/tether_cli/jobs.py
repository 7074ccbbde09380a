"""`tether jobs`: list, show, follow, cancel and reprioritise jobs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click

from tether.clocks import wall_clock_ms
from tether.ids import JobId
from tether.jobs import JobState
from tether_cli.job_changes import cancel
from tether_cli.job_priorities import reprioritise
from tether_cli.options.connection import Connection, connection_options
from tether_cli.options.values import read_duration, read_labels, read_moment
from tether_cli.terminal.output import open_output, telling_of_interruptions
from tether_cli.terminal.printable import one_line
from tether_cli.terminal.tables import print_json, print_table, time_text
from tether_cli.terminal.waits import telling_of_waits
from tether_cli.verb_groups import VerbGroup

if TYPE_CHECKING:
    from tether.statuses import JobStatus
    from tether_cli.operator_jobs import OwnedJob

all_tenants_option = click.option(
    "--all-tenants", is_flag=True, help="Of any tenant: needs an API key with the scope operator."
)
as_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@click.group(cls=VerbGroup)
def jobs() -> None:
    """List, show, follow, cancel and reprioritise jobs."""


@jobs.command("list")
@click.option(
    "--state",
    "states",
    type=click.Choice([state.value for state in JobState]),
    multiple=True,
    help="Only jobs in this state (repeatable).",
)
@click.option("--model", help="Only jobs for this model.")
@click.option(
    "--label",
    "-l",
    "labels",
    multiple=True,
    metavar="NAME=VALUE",
    callback=read_labels,
    help="Only jobs with this label (repeatable; all must match).",
)
@click.option(
    "--since",
    metavar="TIME",
    callback=read_moment,
    help="Only jobs created since then: an age (1h), or a time in ISO 8601.",
)
@click.option("--until", metavar="TIME", callback=read_moment, help="Only jobs created before then.")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="Maximum number of jobs."
)
@click.option("--tenant", help="Only this tenant's: needs an API key with the scope operator.")
@all_tenants_option
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
    tenant: str | None,
    all_tenants: bool,
    as_json: bool,
) -> None:
    """List your jobs, newest first; with an operator's API key those of any tenant."""
    notes = open_output(is_silent=as_json)[1]
    if all_tenants or tenant is not None:
        from tether.job_filters import make_filter
        from tether_cli.operator_jobs import OperatorJobs

        chosen = make_filter(states, model, labels, tenant=tenant, created_after=since, created_before=until)
        with telling_of_waits(notes, ask=connection.why_slow), connection.open_operator() as operator:
            _print_owned(list(itertools.islice(OperatorJobs(operator).matching(chosen), limit)), as_json)
        return
    with telling_of_waits(notes, ask=connection.why_slow), connection.open() as client:
        matching = client.jobs(
            state=states, model=model, labels=labels, created_after=since, created_before=until
        )
        statuses = list(itertools.islice(matching, limit))
        if not statuses and model is not None and not as_json:
            hint = unknown_model_hint(model, [known.name for known in client.models()])
            if hint is not None:
                notes.warning(hint)
    if as_json:
        from tether.client.documents import status_to_json

        print_json([status_to_json(status) for status in statuses])
        return
    now_ms = wall_clock_ms()
    rows = [_row(status, now_ms) for status in statuses]
    print_table(("JOB", "STATE", "MODEL", "PRIORITY", "TOKENS", "AGE", "LABELS"), rows)


@jobs.command()
@click.argument("job_id", metavar="ID")
@all_tenants_option
@as_json_option
@connection_options
def show(connection: Connection, job_id: str, all_tenants: bool, as_json: bool) -> None:
    """Show the status of a job, why it waits, and every attempt. `tether jobs watch` prints its text."""
    if all_tenants:
        _show_any(connection, job_id, as_json=as_json)
        return
    from tether.client.documents import history_to_json, status_to_json
    from tether.errors import JobNotFound
    from tether_cli.job_history import history_lines, print_attempts
    from tether_cli.job_news import why_waiting

    with (
        telling_of_waits(open_output(is_silent=as_json)[1], ask=connection.why_slow),
        connection.open() as client,
    ):
        handle = client.job(job_id)
        status = handle.status()
        waits = not as_json and not status.state.is_final and status.state is not JobState.RUNNING
        models = client.models() if waits else []
        health = connection.health() if waits else None
        try:
            history = handle.history()
        except JobNotFound:
            # A gateway of an older version, which knows the job and not its attempts.
            history = None
    if as_json:
        told = None if history is None else history_to_json(history)
        print_json({**status_to_json(status), "history": told})
        return
    lines = _lines(status) + ([] if history is None else history_lines(history))
    if waits:
        why = why_waiting(status, models, health)
        lines.insert(2, ("why", why.removeprefix("waits: ")))
        lines.insert(3, ("explained", f"by tether explain --job {job_id}"))
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        click.echo(f"{name:<{width}}  {one_line(value)}")
    if history is not None:
        print_attempts(history.attempts, history.dropped)


def _show_any(connection: Connection, job_id: str, *, as_json: bool) -> None:
    """Show a job of any tenant. Which workers its tenant's jobs are kept from is not told."""
    from tether.client.documents import history_to_json, status_to_json
    from tether_cli.job_history import history_lines, print_attempts
    from tether_cli.operator_jobs import OperatorJobs

    with (
        telling_of_waits(open_output(is_silent=as_json)[1], ask=connection.why_slow),
        connection.open_operator() as client,
    ):
        any_jobs = OperatorJobs(client)
        named = JobId(job_id)
        (tenant_id, status), history = any_jobs.one(named), any_jobs.history(named)
    if as_json:
        print_json({**status_to_json(status), "tenant_id": tenant_id, "history": history_to_json(history)})
        return
    lines = [*_lines(status), *history_lines(history)]
    lines.insert(1, ("tenant", tenant_id))
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        click.echo(f"{name:<{width}}  {one_line(value)}")
    print_attempts(history.attempts, history.dropped)


def _print_owned(found: Sequence[OwnedJob], as_json: bool) -> None:
    if as_json:
        from tether.client.documents import status_to_json

        print_json([{**status_to_json(status), "tenant_id": tenant_id} for tenant_id, status in found])
        return
    now_ms = wall_clock_ms()
    rows = [
        (job, one_line(one.tenant_id), *rest) for one in found for job, *rest in [_row(one.status, now_ms)]
    ]
    print_table(("JOB", "TENANT", "STATE", "MODEL", "PRIORITY", "TOKENS", "AGE", "LABELS"), rows)


jobs.add_command(cancel)
jobs.add_command(reprioritise)


@jobs.command()
@click.argument("job_id", metavar="ID")
@click.option("--offset", type=click.IntRange(0, 2**32 - 1), default=0, help="Start after this many tokens.")
@click.option(
    "--json", "--events", "as_events", is_flag=True, help="Print each event as one JSON object per line."
)
@click.option(
    "--timeout",
    metavar="TIME",
    callback=read_duration,
    help="Maximum time for the whole command; the job continues afterwards.",
)
@connection_options
def watch(connection: Connection, job_id: str, offset: int, as_events: bool, timeout: float | None) -> None:
    """Stream a job's text from the beginning until the job ends.

    The exit status is the job's. Ctrl-C stops watching; the job continues.
    """
    from tether_cli.job_news import JobNews
    from tether_cli.job_progress import (
        WaitLimit,
        events_of,
        going_on,
        show_events,
        show_text,
        told_after,
    )

    limit = WaitLimit(timeout)
    output, notes = open_output(is_silent=as_events)
    with telling_of_interruptions(notes), connection.open(within=limit.left()) as client:
        handle = client.job(job_id)
        news = None if as_events else JobNews(client, handle, notes, lambda: connection.health(limit.left()))
        events = events_of(
            handle, offset=offset, limit=limit, news=news, silence=told_after(notes.patience, limit)
        )
        with going_on(handle.job_id, notes, is_accepted=False):
            if as_events:
                show_events(handle.job_id, events)
            else:
                show_text(handle.job_id, events, offset, output, notes)


def _row(status: JobStatus, now_ms: int) -> tuple[str, ...]:
    labels = " ".join(f"{name}={value}" for name, value in sorted(status.labels.items()))
    tokens = str(status.output_tokens or status.offset)
    shown = (status.job_id, status.state.value, status.model, status.priority, tokens)
    return (*map(one_line, shown), age_text(now_ms - status.created_at), one_line(labels) or "-")


def unknown_model_hint(model: str, known: Sequence[str]) -> str | None:
    """What to say where no job has this model; None where it is configured.

    Args:
      known: Names of the configured models.
    """
    if model in known:
        return None
    import difflib

    near = difflib.get_close_matches(model[:200], known, n=1, cutoff=0.5)
    configured = ", ".join(sorted(known)[:10]) or "none"
    meant = f"did you mean {near[0]!r}?" if near else f"configured: {configured}"
    return f"no model is called {model[:200]!r}; {meant}"


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
        *([("deadline", time_text(status.deadline))] if status.deadline else []),
        *([("to begin by", time_text(status.expires_at))] if status.expires_at else []),
        *([("expected", f"to begin at {time_text(status.expected_at)}")] if status.expected_at else []),
        ("attempts", str(status.attempts)),
        ("input tokens", str(status.input_tokens)),
        ("output tokens", str(status.output_tokens or status.offset)),
        ("correlation id", status.correlation_id),
        ("retry token", status.retry_token),
        *([("degraded from", status.degraded_from)] if status.degraded_from else []),
        *([("retry of", status.retry_of)] if status.retry_of else []),
        *([("retried as", status.retried_as)] if status.retried_as else []),
        *((f"label {one_line(name)}", value) for name, value in sorted(status.labels.items())),
    ]
    if status.error is not None:
        lines.append(("error", f"{status.error.code}: {status.error.message}"))
    if status.state is JobState.DEAD:
        lines.append(("dead letter", f"tether dlq show {status.job_id}"))
    return lines
