"""`tether status`: what the gateway serves, and which jobs are open."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from tether.jobs import JobState
from tether_cli.client_options import Connection, connection_options
from tether_cli.endings import ending_of, tell
from tether_cli.printable import one_line
from tether_cli.tables import print_json

if TYPE_CHECKING:
    from tether.client.api import Tether

MOST_COUNTED = 200
"""Open jobs that are counted: more take more requests."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@connection_options
def status(connection: Connection, as_json: bool) -> None:
    """Say what the gateway serves, and which of your jobs are open.

    The exit status is 0 where the gateway serves, 4 where it cannot be reached or does not serve now.
    """
    from tether.errors import TetherError

    try:
        with connection.open(is_patient=False) as client:
            document = {"url": told_url(connection.url, os.environ), "is_serving": True, **_seen(client)}
    except TetherError as error:
        # What is wrong with the request or the settings is no state of the gateway.
        if not error.retryable:
            raise
        ending = ending_of(error)
        document = {
            "url": told_url(connection.url, os.environ),
            "is_serving": False,
            **(ending.document or {}),
        }
        if as_json:
            print_json(document)
        else:
            click.echo(f"gateway  {document['url']}  does not serve")
            tell(ending, as_json=False)
        click.get_current_context().exit(ending.status)
    if as_json:
        print_json(document)
        return
    _print(document)


def told_url(url: str | None, environ: Mapping[str, str]) -> str | None:
    """Where the gateway is, fit to be shown; None where that is found on this machine."""
    from tether.errors import mask_url

    named = url or environ.get("TETHER_URL")
    return mask_url(named) if named else None


def _seen(client: Tether) -> dict[str, Any]:
    from tether.client.documents import model_to_json

    models = [model_to_json(model) for model in client.models()]
    unended = [state.value for state in JobState if not state.is_final]
    found = list(itertools.islice(client.jobs(state=unended), MOST_COUNTED))
    counts = Counter(job.state.value for job in found)
    return {
        "models": models,
        "open_jobs": {state: counts[state] for state in unended if counts[state]},
        "all_counted": len(found) < MOST_COUNTED,
    }


def _print(document: dict[str, Any]) -> None:
    click.echo(f"gateway  {document['url'] or 'on this machine'}  serves")
    for model in document["models"]:
        workers = model["workers"]
        served = f"{workers} worker{'s' if workers != 1 else ''}" if workers else "no worker: its jobs wait"
        click.echo(f"model    {one_line(model['id'])}  {served}")
    if not document["models"]:
        click.echo("models   none")
    counts = ", ".join(f"{count} {state}" for state, count in document["open_jobs"].items()) or "none open"
    more = "" if document["all_counted"] else f" among the newest {MOST_COUNTED}; there may be more"
    click.echo(f"jobs     {counts}{more}")
