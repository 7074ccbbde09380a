"""`tether pools move` and `purge`: what waits in a pool, a part at a time."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import click

from tether_cli.fleet.asking import timeout_option
from tether_cli.options.connection import Connection, gateway_options
from tether_cli.pools.asking import asking_pools
from tether_cli.terminal.asides import say_aside
from tether_cli.terminal.tables import print_json

NOT_ALL_DONE = 1
"""The exit status where some jobs could not be moved or cancelled."""

JOBS_PER_STEP = 256
"""Jobs that one step moves or cancels."""

SETTLING_SECONDS = 0.2
"""Between two looks whether an orchestrator has settled what was withdrawn."""

MAX_SETTLING_SECONDS = 60.0
"""For so long that is waited for, without any progress."""


_NOTHING_DONE = {"jobs": 0, "failed": 0, "errors": [], "has_more": False}


@click.command()
@click.argument("pool", metavar="POOL")
@click.option("--to", metavar="POOL", help="The pool that is to get them.  [default: any that can]")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Move at most so many.  [default: all]")
@click.option(
    "--park",
    "parks",
    is_flag=True,
    help="Where no other pool can serve them, let them wait in the database; the pool must be paused.",
)
@click.option("--json", "is_json", is_flag=True, help="Print one JSON document.")
@timeout_option
@gateway_options
def move(
    gateway: Connection | None,
    pool: str,
    to: str | None,
    limit: int | None,
    parks: bool,
    is_json: bool,
    within: float | None,
) -> None:
    """Place the jobs that wait in a pool elsewhere. What runs there stays.

    Each job gets the pool that suits it best, as when it was submitted, but this one only where no other can
    serve it. Jobs that the pool given with --to cannot serve go to any other that can. Without another pool
    that can serve them this is refused, unless --park is given. If one cannot be moved, the others still are,
    and the exit status is 1.
    """
    with asking_pools(gateway, within, is_json=is_json) as pools:
        # Asked even where nothing waits: whoever names a pool that cannot get them is told.
        goal = max(1, min(_waiting(pools.show(pool)), limit or sys.maxsize))
        document = in_steps(lambda count: pools.move(pool, to, count, parks=parks), goal)
    _tell(document, "moved", is_json=is_json)


@click.command()
@click.argument("pool", metavar="POOL")
@click.option("--yes", "is_sure", is_flag=True, help="Do not ask.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON document.")
@timeout_option
@gateway_options
def purge(gateway: Connection | None, pool: str, is_sure: bool, is_json: bool, within: float | None) -> None:
    """Cancel the jobs that wait in a pool. What runs there goes on.

    They are counted first, and this asks, unless --yes is given. If one cannot be cancelled, the others still
    are, and the exit status is 1.
    """
    with asking_pools(gateway, within, is_json=is_json) as pools:
        found = pools.show(pool)
        goal = _waiting(found)
        if goal and not is_sure:
            _confirm(goal, found["pool"])
        if goal or found["waiting"] is None:
            document = in_steps(lambda count: pools.purge(pool, count), max(1, goal))
        else:
            # What comes from here on was not counted, and nobody was asked about it.
            document = {"object": "pool_purge", "pool": found["pool"], **_NOTHING_DONE}
    _tell(document, "cancelled", is_json=is_json)


def _confirm(count: int, pool: str) -> None:
    jobs = f"{count} job{'s' if count != 1 else ''}"
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"{jobs} wait in the pool. This asks first, and standard input is no terminal: give --yes."
        )
    click.confirm(f"Cancel {jobs} waiting in pool {pool}?", abort=True, err=True)


def _waiting(pool: Mapping[str, Any]) -> int:
    # Where Redis does not tell, the first step says so.
    return (pool["waiting"] or 0) + int(pool["owed"])


def in_steps(step: Callable[[int], Mapping[str, Any]], goal: int) -> dict[str, Any]:
    """Do it to so many jobs. Return what came of all.

    Raises:
      ResultTimeout: What was withdrawn is not settled.
    """
    from tether.errors import ResultTimeout

    done = failed = 0
    progress_at = time.monotonic()
    never = threading.Event()
    while True:
        last = step(min(JOBS_PER_STEP, goal - done))
        done += last["jobs"]
        # Those that fail stay, and fail in each step.
        failed = max(failed, last["failed"])
        if done >= goal or not last["has_more"]:
            return {**last, "jobs": done, "failed": failed}
        if last["jobs"]:
            progress_at = time.monotonic()
        elif time.monotonic() - progress_at >= MAX_SETTLING_SECONDS:
            raise ResultTimeout(
                f"{done} jobs are done, and the rest is not: what was taken out of Redis is not settled. "
                "Look whether `tether orchestrator` runs, and repeat the command"
            )
        else:
            never.wait(SETTLING_SECONDS)


def _tell(document: Mapping[str, Any], done: str, *, is_json: bool) -> None:
    if is_json:
        print_json(document)
    else:
        for error in document["errors"]:
            click.echo(f"{error['job_id']}: {error['message']} ({error['code']})")
        not_done = f", {document['failed']} not" if document["failed"] else ""
        say_aside(f"{document['jobs']} {done}{not_done}")
    click.get_current_context().exit(NOT_ALL_DONE if document["failed"] else 0)
