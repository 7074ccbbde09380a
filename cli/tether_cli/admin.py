"""`tether admin`: look whether both stores agree, and have them agree again."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from tether_cli.acts import act_of_user, audited
from tether_cli.admin_store import admin_settings
from tether_cli.options.values import read_duration
from tether_cli.terminal.asides import say_aside
from tether_cli.terminal.printable import one_line
from tether_cli.terminal.tables import print_json
from tether_cli.verb_groups import VerbGroup

if TYPE_CHECKING:
    import redis

    from tether.broker.keys import Keys
    from tether.orchestrator.fsck.fsck import FsckReport
    from tether.orchestrator.reconcile import Reconcile
    from tether.store import Store

FOUND = 1
"""Exit status where something is not as it must be."""

MAX_SHOWN = 20
"""Findings of one check that are printed; `--json` has up to a thousand."""

PATIENCE_SECONDS = 60.0
"""How long an orchestrator that runs is given for a rebuild."""

LOOK_SECONDS = 0.2

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@click.group(cls=VerbGroup)
def admin() -> None:
    """Check both stores, reconcile them, or place all jobs anew.

    These verbs work directly on the database and Redis: those of the configuration or, where it says nothing
    of them, those of the `tether up` running on this machine.
    """


@admin.command("fsck")
@click.option(
    "--wait",
    "wait",
    metavar="TIME",
    default="2s",
    show_default=True,
    callback=read_duration,
    help="Time between the two looks at what seems wrong.",
)
@as_json_option
@click.pass_context
def check_stores(ctx: click.Context, wait: float, as_json: bool) -> None:
    """Check every invariant of both stores. Nothing is changed; jobs may run meanwhile.

    The exit status is 0, or 1 if something is wrong.
    """
    from tether.orchestrator.fsck.fsck import fsck

    with _stores() as both:
        report = fsck(both.store, both.client, both.keys, wait=lambda: _pause(wait))
    if as_json:
        print_json(_report_to_json(report))
    else:
        _print_report(report)
    ctx.exit(0 if report.is_sound else FOUND)


@admin.command()
@as_json_option
def reconcile(as_json: bool) -> None:
    """Reconcile Redis with the database now, as the orchestrator does every few minutes."""
    from tether.orchestrator.rebuild import reconcile_now

    with _stores() as both:
        step = both.reconcile()
        act = act_of_user("admin.reconcile", "redis")
        count = audited(both.store).elsewhere(act, lambda: reconcile_now(both.store, step))
    if as_json:
        print_json({"object": "reconcile", "jobs": count})
    else:
        click.echo(f"Reconciled. Jobs in Redis that were compared: {count}.")


@admin.command()
@click.option("--yes", "is_sure", is_flag=True, help="Do not ask.")
@as_json_option
def rebuild(is_sure: bool, as_json: bool) -> None:
    """Place every job that is in Redis anew. Workers drop what they run, and draw it again.

    No job is lost, and no token that was streamed. It is for a Redis whose content cannot be trusted.
    """
    from tether.orchestrator.rebuild import rebuild_now

    if not is_sure:
        if not sys.stdin.isatty():
            raise click.UsageError("This interrupts every running job: say --yes.")
        click.confirm("Interrupt every running job, and place all anew?", abort=True, err=True)
    ends_at = time.monotonic() + PATIENCE_SECONDS

    def wait() -> bool:
        _pause(LOOK_SECONDS)
        return time.monotonic() < ends_at

    with _stores() as both:
        step = both.reconcile()
        act = act_of_user("admin.rebuild", "redis")
        report = audited(both.store).elsewhere(
            act,
            lambda: rebuild_now(both.store, both.client, both.keys, step, now_ms=both.now_ms, wait=wait),
        )
    if as_json:
        print_json({"object": "rebuild", **vars(report)})
    else:
        by = "The orchestrator has begun" if report.by_orchestrator else "Began"
        click.echo(f"{by} epoch {report.epoch}. Jobs in Redis that are placed anew: {report.jobs}.")
        if not report.by_orchestrator:
            say_aside("No orchestrator runs: they are placed once one does.")


@dataclass(frozen=True)
class BothStores:
    """The database and Redis of the settings, open."""

    store: Store
    client: redis.Redis
    keys: Keys
    result_ttl_ms: int
    closing: contextlib.ExitStack

    def now_ms(self) -> int:
        """Milliseconds since the epoch, by Redis's clock."""
        from tether.broker.redis.clock import read_clock

        return round(read_clock(self.client).told_ms)

    def reconcile(self) -> Reconcile:
        """The step that reconciles."""
        from tether.broker.pools.pools import Pools
        from tether.orchestrator.reconcile import Reconcile
        from tether.scheduling.cancellation import Cancellation

        pools = Pools(self.client, self.keys)
        self.closing.callback(pools.close)
        ending = Cancellation(self.store, pools, self.result_ttl_ms)
        return Reconcile(
            self.store, pools, ending, interval=0, life_ms=self.result_ttl_ms, now_ms=self.now_ms
        )


@contextlib.contextmanager
def _stores() -> Iterator[BothStores]:
    """
    Raises:
      BrokerUnavailable: Redis did not answer what it was asked meanwhile.
    """
    from tether.broker.keys import Keys
    from tether.broker.redis.connections import OUTAGE_ERRORS, address_of, connect
    from tether.errors import BrokerUnavailable
    from tether.store import Store
    from tether.telemetry.logs import configure_logs

    settings = admin_settings()
    configure_logs(form=settings.logs.form, level="error", process="admin")
    with contextlib.ExitStack() as closing:
        store = closing.enter_context(Store(settings.database.url).open(migrate=False))
        client = connect(settings.redis.url)
        closing.callback(client.close)
        keys = Keys(settings.redis.namespace, settings.redis.hash_tag)
        try:
            yield BothStores(store, client, keys, settings.jobs.result_ttl, closing)
        except OUTAGE_ERRORS as error:
            raise BrokerUnavailable(
                f"Redis at {address_of(client)} does not respond ({error}): start it, or correct redis.url"
            ) from error


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def _print_report(report: FsckReport) -> None:
    from tether.orchestrator.fsck.invariants import INVARIANTS

    for check, text in INVARIANTS.items():
        mine = [each for each in report.found if each.check is check]
        count = len(mine) + report.unconfirmed.get(check, 0)
        if not count:
            continue
        click.echo(f"{check} ({count}): {text.wrong}")
        for each in mine[:MAX_SHOWN]:
            click.echo(f"  {one_line(each.subject)}: {one_line(each.detail)}")
        if count > MAX_SHOWN:
            click.echo(f"  and {count - MAX_SHOWN} more")
        click.echo(f"  -> {text.mend}")
    found = len(report.found) + sum(report.unconfirmed.values())
    say_aside(f"{report.looked_at} things looked at, {found or 'none'} wrong.")


def _report_to_json(report: FsckReport) -> dict[str, object]:
    from tether.orchestrator.fsck.invariants import INVARIANTS

    return {
        "object": "fsck",
        "is_sound": report.is_sound,
        "looked_at": report.looked_at,
        "findings": [
            {
                "check": each.check.value,
                "subject": one_line(each.subject),
                "detail": one_line(each.detail),
                "mend": INVARIANTS[each.check].mend,
            }
            for each in report.found
        ],
        "unconfirmed": {check.value: count for check, count in report.unconfirmed.items()},
    }
