"""`tether jobs reprioritise`: by id, or all that match."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from tether.jobs import JobState, Priority
from tether_cli.job_changes import JobChoice, change_each, change_options, change_where, check_choice
from tether_cli.options.connection import Connection

if TYPE_CHECKING:
    from tether.client.many_jobs import ManyJobs
    from tether.job_changes import JobChange


@click.command()
@click.option(
    "--priority",
    type=click.Choice([priority.value for priority in Priority]),
    required=True,
    help="Their new priority class.",
)
@change_options
def reprioritise(
    connection: Connection,
    job_ids: tuple[str, ...],
    priority: str,
    where: dict[str, Any] | None,
    all_tenants: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Give jobs another priority: those with these ids, or all that match --where and have not ended.

    A waiting job keeps its age. A running one goes on, and its next attempt has the new priority. Doing it
    again changes nothing. If one cannot be changed, the others still are. With ids the exit status is that of
    the first failure; with --where the jobs are counted first, and the exit status is 1 if some could not be
    changed.
    """
    check_choice(job_ids, where, dry_run=dry_run, yes=yes)
    if where is None:
        change_each(
            connection,
            job_ids,
            lambda job: job.reprioritise(priority),
            lambda state: _told(state, priority),
            all_tenants=all_tenants,
            as_json=as_json,
        )
        return
    choice = JobChoice(where, all_tenants)

    def jobs(many: ManyJobs, is_dry: bool) -> Iterator[JobChange]:
        return many.reprioritise(priority, all=choice.is_all, dry_run=is_dry, **choice.options())

    words = ("Reprioritise", "reprioritised")
    change_where(connection, choice, jobs, words, dry_run=dry_run, yes=yes, as_json=as_json)


def _told(state: JobState, priority: str) -> str:
    return f"{priority}: its next attempt" if state is JobState.RUNNING else f"{priority}: {state}"
