"""`tether audit`: who did what, as the database has it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from tether_cli.admin_store import admin_store, tenant_of
from tether_cli.terminal.asides import say_aside
from tether_cli.terminal.printable import one_line
from tether_cli.terminal.tables import print_json, print_table, time_text

if TYPE_CHECKING:
    from tether.store.audit_pages import AuditEntry

_COLUMNS = ("id", "at", "actor", "address", "action", "target", "tenant", "result", "details")


@click.command()
@click.option("--actor", metavar="WHO", help="Only acts by this API key, or `cli:` and this user.")
@click.option("--action", metavar="ACTION", help="Only this act, or acts on this: keys.create, keys.")
@click.option("--target", metavar="ID", help="Only acts on the key, tenant, job or worker with this id.")
@click.option("--tenant", "tenant_id", help="Only acts that concern this tenant.")
@click.option("--limit", default="50", show_default=True, metavar="N", help="Maximum number of entries.")
@click.option("--cursor", metavar="CURSOR", help="Go on behind the previous page.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON document.")
def audit(
    actor: str | None,
    action: str | None,
    target: str | None,
    tenant_id: str | None,
    limit: str,
    cursor: str | None,
    is_json: bool,
) -> None:
    """Read the audit log, newest first: what operators, admins and this command changed.

    This verb works directly on the database: the one given by database.url or, if that is not set, that of
    the `tether up` running on this machine, else of the state folder that TETHER_DIR names.
    """
    from tether.ids import TenantId
    from tether.store.audit_pages import audit_page, audit_page_to_json, check_action, read_audit_place

    count, before = read_audit_place(limit, cursor)
    if action is not None:
        check_action(action)
    with admin_store() as store:
        tenant = None if tenant_id is None else tenant_of(store, TenantId(tenant_id)).tenant_id
        page = store.read(
            audit_page,
            before=before,
            limit=count,
            actor=actor,
            action=action,
            target=target,
            tenant_id=tenant,
        )
    if is_json:
        print_json(audit_page_to_json(page))
        return
    print_table(_COLUMNS, [_row(entry) for entry in page.entries])
    if page.after is not None and sys.stdout.isatty():
        say_aside(f"More: --cursor {page.after}")


def _row(entry: AuditEntry) -> tuple[str, ...]:
    cells = (
        *(str(entry.entry_id), time_text(entry.at), entry.actor, entry.address, entry.action, entry.target),
        *(entry.tenant_id or "-", entry.result),
        json.dumps(entry.details, ensure_ascii=False) if entry.details else "-",
    )
    return tuple(map(one_line, cells))
