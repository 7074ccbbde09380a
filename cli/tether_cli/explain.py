"""`tether explain`: where a job would be placed now, or was placed, and why."""

from __future__ import annotations

import sys
from typing import Any

import click

from tether.ids import JobId
from tether_cli.jobs import all_tenants_option
from tether_cli.options.connection import Connection, connection_options
from tether_cli.options.job_fields import given_options, job_field_options
from tether_cli.terminal.output import open_output
from tether_cli.terminal.tables import print_json
from tether_cli.terminal.waits import telling_of_waits

EXAMPLE_PROMPT = "."
"""What is placed where no prompt is given: one token, as prompts are estimated."""


@click.command()
@click.argument("prompt", required=False)
@click.option("--job", "job_id", metavar="ID", help="Show why this job was placed where it was.")
@click.option("--dispatch", type=click.IntRange(1), help="With --job: show the choice of this hand-over.")
@all_tenants_option
@click.option("--file", "-f", metavar="PATH", help="Read the prompt from this file; - is standard input.")
@click.option("--model", "-m", help="Model to use.  [default: the configured model, if there is only one]")
@job_field_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@connection_options
def explain(
    connection: Connection,
    prompt: str | None,
    job_id: str | None,
    dispatch: int | None,
    all_tenants: bool,
    file: str | None,
    model: str | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Show where a job would be placed now, and why: no job is made.

    It takes the options of `tether submit`. Of each pool of the model it prints what is expected there, the
    terms of its score and its cost, or why it cannot serve the job. Without a prompt, one of one token is
    placed.

    With --job it prints the same of a job that was submitted, as it was when its pool was chosen, and how
    long it really waited.
    """
    if job_id is not None:
        context = click.get_current_context()
        for each in context.command.params:
            is_given = context.get_parameter_source(str(each.name)) is click.core.ParameterSource.COMMANDLINE
            if is_given and (each.name in asked or each.name in ("prompt", "file", "model")):
                name = each.opts[0] if isinstance(each, click.Option) else "a prompt"
                raise click.UsageError(f"--job cannot be combined with {name}.")
        _explain_job(connection, job_id, dispatch, all_tenants=all_tenants, as_json=as_json)
        return
    for is_given, flag in ((dispatch is not None, "--dispatch"), (all_tenants, "--all-tenants")):
        if is_given:
            raise click.UsageError(f"{flag} goes with --job.")
    from tether_cli.options.prompts import read_prompt
    from tether_cli.submit import only_model

    text = EXAMPLE_PROMPT
    if prompt is not None or file is not None:
        text = read_prompt(prompt, file, standard_input=lambda: sys.stdin.buffer, is_terminal=False)
    with (
        telling_of_waits(open_output(is_silent=as_json)[1], ask=connection.why_slow),
        connection.open() as client,
    ):
        found = client.explain(model or only_model(client), text, **given_options(asked))
    if as_json:
        from tether.client.documents import explanation_to_json

        print_json(explanation_to_json(found))
        return
    from tether_cli.placement_tables import print_explanation

    print_explanation(found)


def _explain_job(
    connection: Connection, job_id: str, dispatch: int | None, *, all_tenants: bool, as_json: bool
) -> None:
    from tether.client.documents import placements_to_json
    from tether.errors import InvalidRequest
    from tether_cli.operator_jobs import OperatorJobs
    from tether_cli.placement_tables import print_placements

    with telling_of_waits(open_output(is_silent=as_json)[1], ask=connection.why_slow):
        if all_tenants:
            with connection.open_operator() as operator:
                found = OperatorJobs(operator).placements(JobId(job_id))
        else:
            with connection.open() as client:
                found = client.job(job_id).placements()
    numbers = [each.dispatch for each in found.placements]
    if dispatch is not None and dispatch not in numbers:
        known = ", ".join(map(str, numbers)) or "none"
        raise InvalidRequest(f"nothing is kept of hand-over {dispatch} of job {job_id}; there are: {known}")
    if as_json:
        print_json(placements_to_json(found))
        return
    print_placements(found, dispatch)
