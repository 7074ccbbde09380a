"""`tether status`: what the gateway serves, and which jobs are open."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from tether.clocks import wall_clock_ms
from tether.jobs import JobState
from tether_cli.options.connection import HEALTH_SECONDS, Connection, connection_options
from tether_cli.terminal.printable import one_line
from tether_cli.terminal.tables import print_json

if TYPE_CHECKING:
    from tether.client.api import Tether
    from tether.local.running import Running

_IN_POOL = (JobState.ACCEPTED, JobState.PLACED)

MAX_COUNTED = 200
"""Open jobs that are counted: more take more requests."""

REMEDIES = {
    "cordoned": "`tether fleet uncordon WORKER` lets one take jobs again",
    "draining": "one that is not being stopped takes jobs again after `tether fleet uncordon WORKER`",
    "revoked": "`tether fleet trust --again KEY` lets one take jobs again",
    "unroutable": "one that lost a job is believed again with its next announcement",
}
"""What to do, by what a model's workers are that are given no jobs."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@connection_options
def status(connection: Connection, as_json: bool) -> None:
    """Show what the gateway serves, and which of your jobs are open.

    For a `tether up` on this machine its parts are shown as well. The exit status is 0 if the gateway
    accepts jobs, 4 if it cannot be reached, or accepts none, as with a database that cannot be written.
    """
    from tether.errors import GatewayUnavailable, GatewayUnknown, TetherError, mask_url

    url = told_url(connection.url, os.environ)
    running = connection.surroundings.find_running() if url is None else None
    stack = None if running is None else running.stack
    address = connection.url or os.environ.get("TETHER_URL") or (stack.url if stack else None)
    shown = url or (mask_url(address) if address else None)
    health = (
        None if address is None else connection.surroundings.readiness(address.rstrip("/"), HEALTH_SECONDS)
    )
    accepts_jobs = health is None or health["database"] == "ok"
    document: dict[str, Any] = {"url": shown, "is_serving": accepts_jobs, "health": health, **_local(running)}
    try:
        with connection.open(is_patient=False) as client:
            knows_workers = health is None or health["redis"] == "ok"
            document |= _seen(client, knows_workers=knows_workers)
    except TetherError as error:
        # What is wrong with the request or the settings is no state of the gateway. One that is being started
        # has not said yet where it is.
        is_starting = running is not None and isinstance(error, GatewayUnknown)
        if not (error.retryable or is_starting):
            raise
        from tether_cli.exit_status import exit_for, tell

        ending = exit_for(error)
        document |= {"is_serving": False, **(ending.document or {})}
        if as_json:
            print_json(document)
        else:
            click.echo(
                f"gateway  {shown or 'on this machine'}  {'starting' if is_starting else 'not serving'}"
            )
            _print_local(document)
            if not is_starting:
                tell(ending, as_json=False)
        click.get_current_context().exit(GatewayUnavailable.exit_status)
    if as_json:
        print_json(document)
    else:
        _print(document)
    if not accepts_jobs:
        click.get_current_context().exit(GatewayUnavailable.exit_status)


def _local(running: Running | None) -> dict[str, Any]:
    from tether.local.part_states import part_to_json

    if running is None:
        return {"local": None}
    parts = () if running.stack is None else running.stack.parts
    return {
        "local": {
            "folder": str(running.folder.path),
            "pid": running.pid,
            "url": running.stack.url if running.stack else None,
            "parts": [part_to_json(part) for part in parts],
        }
    }


def told_url(url: str | None, environ: Mapping[str, str]) -> str | None:
    """Where the gateway is, fit to be shown; None where that is found on this machine."""
    from tether.errors import mask_url

    named = url or environ.get("TETHER_URL")
    return mask_url(named) if named else None


def _seen(client: Tether, *, knows_workers: bool) -> dict[str, Any]:
    from tether.client.documents import model_to_json
    from tether.codec import value_to_json
    from tether.errors import RouteUnknown
    from tether.statuses import absence_text

    letters = None
    # An older gateway tells none.
    with contextlib.suppress(RouteUnknown):
        letters = value_to_json(client.dead_letters.summary())
    infos = client.models()
    models = [{**model_to_json(model), "absence": absence_text(model)} for model in infos]
    unended = [state.value for state in JobState if not state.is_final]
    open_jobs = list(itertools.islice(client.jobs(state=unended), MAX_COUNTED))
    counts = Counter(job.state.value for job in open_jobs)
    serving = {pool for model in infos for pool in model.pools}
    # A gateway that does not tell pools names none although there are workers.
    tells_pools = knows_workers and (bool(serving) or not any(model.workers for model in infos))
    deserted = Counter(
        job.pool
        for job in open_jobs
        if tells_pools and job.state in _IN_POOL and job.pool is not None and job.pool not in serving
    )
    return {
        "models": models,
        "open_jobs": {state: counts[state] for state in unended if counts[state]},
        "deserted_pools": dict(sorted(deserted.items())),
        "all_counted": len(open_jobs) < MAX_COUNTED,
        "dead_letters": letters,
    }


def _print(document: dict[str, Any]) -> None:
    is_serving = "serving" if document["is_serving"] else "accepts no jobs"
    click.echo(f"gateway  {document['url'] or 'on this machine'}  {is_serving}")
    _print_local(document)
    is_redis_away = document["health"] is not None and document["health"]["redis"] != "ok"
    for model in document["models"]:
        click.echo(f"model    {one_line(model['id'])}  {_served_text(model, is_redis_away=is_redis_away)}")
        for worker, why in model["held_workers"].items():
            click.echo(f"held     {one_line(model['id'])}  worker {one_line(worker)}: {one_line(why)}")
        # An older gateway tells none.
        for why in model.get("shut_regions", {}).values():
            click.echo(f"breaker  {one_line(model['id'])}  {one_line(why)}: tether breakers list")
        for worker, why in model["failing_workers"].items():
            click.echo(
                f"failing  {one_line(model['id'])}  worker {one_line(worker)} cannot load it: {one_line(why)}"
            )
    if not document["models"]:
        click.echo("models   none")
    counts = ", ".join(f"{count} {state}" for state, count in document["open_jobs"].items()) or "none open"
    more = "" if document["all_counted"] else f" among the newest {MAX_COUNTED}; there may be more"
    click.echo(f"jobs     {counts}{more}")
    if document["dead_letters"] is not None and document["dead_letters"]["open"]:
        from tether.codec import value_from_json
        from tether.dead_letters import LetterSummary
        from tether_cli.dlq.texts import summary_text

        summary = value_from_json(LetterSummary, document["dead_letters"])
        click.echo(f"letters  {summary_text(summary, wall_clock_ms())}: tether dlq list")
    for pool, count in document["deserted_pools"].items():
        click.echo(
            f"pool     {one_line(pool)}  {count} of these wait there, and no live worker draws from it: "
            "another pool gets them, or they are parked, unless a worker comes back"
        )


def _served_text(model: dict[str, Any], *, is_redis_away: bool) -> str:
    """How a model is served, and how that can be mended where it is not."""
    if is_redis_away:
        return "unknown: workers are not heard of while Redis is away; jobs wait"
    workers, absence = model["workers"], model["absence"]
    others = f" ({absence})" if absence else ""
    if workers:
        loads = "" if model["is_loaded"] else ", not loaded yet: jobs wait until it is"
        return f"{workers} worker{'s' if workers != 1 else ''}{loads}{others}"
    remedies = [remedy for state, remedy in REMEDIES.items() if model["unavailable_workers"].get(state)]
    remedy = "; ".join(remedies or ["start one with `tether worker`"] * (not absence))
    return f"no worker takes jobs{others}: jobs wait{f'. {remedy}' if remedy else ''}"


def _print_local(document: dict[str, Any]) -> None:
    """Print how the parts are, and what the gateway says of what it stands on."""
    for part in (document["local"] or {}).get("parts", ()):
        process = f"  process {part['pid']}" if part["pid"] else ""
        times = "once" if part["restarts"] == 1 else f"{part['restarts']} times"
        again = f"  restarted {times}, most recently: {part['why']}" if part["restarts"] else ""
        click.echo(f"part     {part['name']}  {part['state']}{process}{one_line(again)}")
    health = document["health"]
    if health is None:
        return
    for name, without in (
        ("database", "no queries or submissions are possible"),
        ("redis", "jobs are accepted, and wait until it is back"),
        (
            "orchestrator",
            "jobs are accepted; those that wait are not placed, failed ones not retried, and ends not "
            "recorded, until one runs: `tether orchestrator` starts one",
        ),
    ):
        # An older gateway says nothing of orchestrators.
        if name not in health or health[name] == "unknown":
            continue
        told = one_line(health[name])
        click.echo(f"{name:<8} {told}{'' if told == 'ok' else f': {without}'}")
