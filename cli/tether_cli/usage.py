"""`tether tenants usage`: what tenants have used, and what is left of their quotas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from tether.clocks import wall_clock_ms
from tether_cli.admin_store import admin_store, tenant_of
from tether_cli.terminal.asides import say_aside
from tether_cli.terminal.printable import one_line
from tether_cli.terminal.tables import print_json, print_table

if TYPE_CHECKING:
    from tether.store.usage_reports import QuotaUse, UsageReport


@click.command()
@click.argument("tenant_id", metavar="[ID]", required=False)
@click.option("--from", "first", metavar="DAY", help="First day, as 2026-12-31. Without it, 30 days in all.")
@click.option("--to", "last", metavar="DAY", help="Last day. Without it, today.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON document.")
def usage(tenant_id: str | None, first: str | None, last: str | None, is_json: bool) -> None:
    """Report what tenants used, by model and by the day of UTC on which their jobs ended.

    With a tenant's ID, of that one alone, and with what is spent and held of its quotas now.
    """
    from tether.ids import TenantId
    from tether.store.usage_reports import read_usage_days, usage_report, usage_report_to_json

    now_ms = wall_clock_ms()
    days = read_usage_days(first, last, now_ms)
    with admin_store() as store:
        tenant = None if tenant_id is None else tenant_of(store, TenantId(tenant_id)).tenant_id
        report = store.read(usage_report, days, tenant, now_ms)
    if is_json:
        print_json(usage_report_to_json(report))
        return
    _print_usage(report)
    if not report.is_whole:
        say_aside("There is more: name a tenant, or fewer days.")
    if report.quotas:
        _print_quotas(report.quotas)


def _print_usage(report: UsageReport) -> None:
    from tether.store.usage_reports import day_text

    print_table(
        ("tenant", "day", "model", "jobs", "succeeded", "input tokens", "output tokens"),
        [
            (
                *(one_line(row.tenant_id), day_text(row.day), one_line(row.model)),
                *map(str, (row.jobs, row.succeeded, row.input_tokens, row.output_tokens)),
            )
            for row in report.rows
        ],
    )


def _print_quotas(uses: Sequence[QuotaUse]) -> None:
    print_table(
        ("quota", "begins", "limit", "spent", "held"),
        [
            (f"{use.unit} per {use.per}", use.begins.isoformat(), *map(str, (use.limit, use.spent, use.held)))
            for use in uses
        ],
    )
