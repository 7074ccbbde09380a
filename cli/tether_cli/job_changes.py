"""Changes of jobs, by id or all that match; and `tether jobs cancel`."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from tether.ids import JobId
from tether.jobs import JobState
from tether_cli.options.connection import Connection, connection_options
from tether_cli.options.values import read_labels
from tether_cli.options.where import read_where
from tether_cli.terminal.asides import say_aside
from tether_cli.terminal.output import open_output, print_line
from tether_cli.terminal.tables import print_json
from tether_cli.terminal.waits import telling_of_waits

if TYPE_CHECKING:
    from tether.client.api import Tether
    from tether.client.handles import JobHandle
    from tether.client.many_jobs import JobOptions, ManyJobs
    from tether.job_changes import JobChange
    from tether_cli.operator_jobs import OperatorJob

WHERE_NAMES = ("state", "model", "pool", "label", "tenant", "since", "until")
"""What ``--where`` takes, as NAME=VALUE; ``state`` and ``label=NAME=VALUE`` several times."""

NOT_ALL_CHANGED = 1
"""The exit status where some jobs could not be changed."""

Jobs = Callable[["ManyJobs", bool], "Iterator[JobChange]"]
"""Changes jobs, or only says which: that is the second argument."""


@dataclass(frozen=True)
class JobChoice:
    """Which jobs, and whose."""

    where: dict[str, Any]
    all_tenants: bool

    @property
    def is_all(self) -> bool:
        """Whether every job that the key reaches is meant."""
        return not self.where

    def jobs_of(self, client: Tether) -> ManyJobs:
        """The client's side of it: that of operators where other tenants are asked for."""
        return client.every_job if self.all_tenants or "tenant" in self.where else client.many_jobs

    def options(self) -> JobOptions:
        """The arguments of the client's methods."""
        where = self.where
        return {
            "state": where.get("state", ()),
            "model": where.get("model"),
            "labels": where.get("labels"),
            "pool": where.get("pool"),
            "tenant": where.get("tenant"),
            "created_after": where.get("since"),
            "created_before": where.get("until"),
        }


def _read_where(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, Any] | None:
    where = read_where(ctx, param, given, WHERE_NAMES, repeated=("state", "label"))
    if where is None:
        return None
    for state in where.get("state", ()):
        if state not in tuple(JobState):
            raise click.BadParameter(f"{state!r} is not a state: {', '.join(JobState)}.", ctx, param)
    if "label" in where:
        where["labels"] = read_labels(ctx, param, where.pop("label"))
    return where


def change_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what every change of jobs takes: ``job_ids``; ``--where``, ``--all-tenants``, ``--dry-run`` and
    ``--yes``; ``--json``; and the connection. The function gets ``where``, None without it."""
    options = (
        click.argument("job_ids", metavar="[ID]...", nargs=-1),
        click.option(
            "--where",
            "where",
            multiple=True,
            metavar="NAME=VALUE",
            callback=_read_where,
            help=f"Which jobs (repeatable; all must match): {', '.join(WHERE_NAMES)}; `all` for every one.",
        ),
        click.option(
            "--all-tenants",
            is_flag=True,
            help="Jobs of any tenant. Needs an API key with the scope operator.",
        ),
        click.option("--dry-run", is_flag=True, help="With --where: only print which jobs it would be."),
        click.option("--yes", is_flag=True, help="With --where: do not ask."),
        click.option(
            *("--json", "as_json"),
            is_flag=True,
            help="Print one JSON document; with --where one JSON object a line.",
        ),
        connection_options,
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@change_options
def cancel(
    connection: Connection,
    job_ids: tuple[str, ...],
    where: dict[str, Any] | None,
    all_tenants: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Cancel jobs: those with these ids, or all that match --where and have not ended.

    A running job ends once its worker has received the cancellation. Cancelling a job again, or after it has
    ended, changes nothing. If one cannot be cancelled, the others still are. With ids the exit status is that
    of the first failure; with --where the jobs are counted first, and the exit status is 1 if some could not
    be cancelled.
    """
    check_choice(job_ids, where, dry_run=dry_run, yes=yes)
    if where is None:
        change_each(
            *(connection, job_ids, lambda job: job.cancel(), _cancelling),
            all_tenants=all_tenants,
            as_json=as_json,
        )
        return
    choice = JobChoice(where, all_tenants)

    def jobs(many: ManyJobs, is_dry: bool) -> Iterator[JobChange]:
        return many.cancel(all=choice.is_all, dry_run=is_dry, **choice.options())

    change_where(connection, choice, jobs, ("Cancel", "cancelled"), dry_run=dry_run, yes=yes, as_json=as_json)


def check_choice(job_ids: Sequence[str], where: dict[str, Any] | None, *, dry_run: bool, yes: bool) -> None:
    """Check that jobs are named in one way."""
    if bool(job_ids) == (where is not None):
        raise click.UsageError("Give ids of jobs, or --where; `--where all` is every job.")
    if where is None and (dry_run or yes):
        raise click.UsageError("--dry-run and --yes need --where.")


def change_where(
    connection: Connection,
    choice: JobChoice,
    jobs: Jobs,
    words: tuple[str, str],
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Count the jobs, ask, change them, and print what came of each.

    Args:
      words: What is done to them, and what they are then.
    """
    verb, done = words
    notes = open_output(is_silent=as_json)[1]
    with telling_of_waits(notes, ask=connection.why_slow), connection.open() as client:
        many = choice.jobs_of(client)
        if dry_run:
            for change in jobs(many, True):
                if as_json:
                    _tell(change, done, as_json=True)
                else:
                    click.echo(f"{change.job_id} would be {done}: {change.state}")
            return
        if not yes:
            states = Counter(change.state.value for change in jobs(many, True))
            count = states.total()
            if count == 0:
                say_aside("no job matches")
                return
            if not sys.stdin.isatty():
                raise click.UsageError(
                    f"{count} jobs match. This asks first, and standard input is no terminal: give --yes."
                )
            told = ", ".join(f"{number} {state}" for state, number in states.items())
            click.confirm(f"{verb} {count} jobs ({told})?", abort=True, err=True)
        failed = changed = 0
        for change in jobs(many, False):
            _tell(change, done, as_json=as_json)
            failed += change.error is not None
            changed += change.error is None
    if not as_json:
        say_aside(f"{changed} {done}, {failed} not")
    click.get_current_context().exit(NOT_ALL_CHANGED if failed else 0)


def _tell(change: JobChange, done: str, *, as_json: bool) -> None:
    from tether.codec import value_to_json

    if as_json:
        print_line(value_to_json(change))
    elif change.error is not None:
        click.echo(f"{change.job_id} {change.state}: {change.error.message} ({change.error.code})")
    elif done == "cancelled" and change.state is not JobState.CANCELLED:
        click.echo(f"{change.job_id} {_cancelling(change.state)}")
    else:
        click.echo(f"{change.job_id} {change.state}" if done == "cancelled" else f"{change.job_id} {done}")


def change_each(
    connection: Connection,
    job_ids: Sequence[str],
    change: Callable[[JobHandle | OperatorJob], JobState],
    said: Callable[[JobState], str],
    *,
    all_tenants: bool,
    as_json: bool,
) -> None:
    """Change jobs by their ids, each by itself, and print what came of each.

    Args:
      change: Changes one, and returns its state then.
      said: What is printed of that.
    """
    from tether.errors import JobEnded, JobNotFound

    answers: list[dict[str, Any]] = []
    failed = 0
    notes = open_output(is_silent=as_json)[1]
    with contextlib.ExitStack() as stack:
        stack.enter_context(telling_of_waits(notes, ask=connection.why_slow))
        job_of = _jobs_by_id(connection, stack, all_tenants=all_tenants)
        for job_id in job_ids:
            try:
                state = change(job_of(job_id))
            except (JobNotFound, JobEnded) as error:
                from tether_cli.exit_status import exit_for, tell

                ending = exit_for(error)
                failed = failed or ending.status
                answers.append({"job_id": job_id, **(ending.document or {})})
                if not as_json:
                    tell(ending, as_json=False)
                continue
            answers.append({"object": "job.state", "job_id": job_id, "state": state})
            if not as_json:
                click.echo(f"{job_id} {said(state)}")
    if as_json:
        print_json(answers)
    click.get_current_context().exit(failed)


def _jobs_by_id(
    connection: Connection, stack: contextlib.ExitStack, *, all_tenants: bool
) -> Callable[[str], JobHandle | OperatorJob]:
    """What makes a job of its id: one of the key's tenant, or of any. The stack closes the client."""
    if not all_tenants:
        return stack.enter_context(connection.open()).job
    from tether_cli.operator_jobs import OperatorJobs

    any_jobs = OperatorJobs(stack.enter_context(connection.open_operator()))
    return lambda name: any_jobs.job(JobId(name))


def _cancelling(state: JobState) -> str:
    return state.value if state.is_final else f"cancelling: {state} until its worker has received it"
