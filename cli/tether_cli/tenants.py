"""`tether tenants`: make, list and change tenants, in the database itself."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from tether.clocks import wall_clock_ms
from tether.errors import InvalidRequest
from tether.ids import TenantId
from tether_cli.acts import act_of_user, audited
from tether_cli.admin_store import admin_store, tenant_of
from tether_cli.terminal.asides import say_aside
from tether_cli.terminal.tables import print_json, print_table, time_text
from tether_cli.usage import usage

if TYPE_CHECKING:
    from tether.store.tenants import Tenant, TenantValues

as_json = click.option("--json", "is_json", is_flag=True, help="Print one JSON document.")
name_option = click.option("--name", help="Display name.")
weight_option = click.option(
    "--weight", metavar="NUMBER", help="Share of a busy pool, relative to the weights of other tenants."
)
quota_option = click.option(
    "--quota", metavar="N|none", help="Maximum number of open jobs; none for no limit."
)


@click.group()
def tenants() -> None:
    """Create, list and change tenants.

    A tenant has its own jobs and API keys, a share of the fleet, and a quota. These verbs work directly on
    the database: the one given by database.url or, if that is not set, that of the `tether up` running on
    this machine, else of the state folder that TETHER_DIR names.
    """


@tenants.command()
@click.argument("tenant_id", metavar="ID")
@name_option
@weight_option
@quota_option
@as_json
def create(tenant_id: str, name: str | None, weight: str | None, quota: str | None, is_json: bool) -> None:
    """Create a tenant. It is an error if the tenant already exists.

    ID consists of a to z, 0 to 9, '_' and '-', and cannot be changed: every job of the tenant contains it.
    """
    from tether.store.tenants import Tenant, check_tenant, create_tenant

    values = _values(name, weight, quota)
    new_id = TenantId(tenant_id)
    check_tenant(new_id, values)
    tenant = Tenant(
        new_id,
        values.get("name", tenant_id),
        values.get("weight", 1.0),
        values.get("quota"),
        wall_clock_ms(),
    )
    with admin_store() as store:
        exists = InvalidRequest(
            f"tenant {tenant_id!r} already exists: change it with `tether tenants set`, or use another id"
        )
        act = act_of_user("tenants.create", new_id, new_id, **values)
        audited(store).write(act, lambda connection: None if create_tenant(connection, tenant) else exists)
        place = store.place
    _say(tenant, f"Created tenant {tenant_id} in {place}.", is_json=is_json)


@tenants.command("list")
@as_json
def list_tenants(is_json: bool) -> None:
    """List tenants, by id."""
    from tether.store.tenants import all_tenants

    with admin_store() as store:
        shown = store.read(all_tenants)
    if is_json:
        print_json({"object": "list", "data": [_tenant_to_json(tenant) for tenant in shown]})
        return
    print_table(
        ("id", "name", "weight", "quota", "created"),
        [
            (
                tenant.tenant_id,
                tenant.name,
                f"{tenant.weight:g}",
                "none" if tenant.quota is None else str(tenant.quota),
                # The first migration makes a tenant at no known time.
                time_text(tenant.created_at or None),
            )
            for tenant in shown
        ],
    )


@tenants.command("set")
@click.argument("tenant_id", metavar="ID")
@name_option
@weight_option
@quota_option
@as_json
def change(tenant_id: str, name: str | None, weight: str | None, quota: str | None, is_json: bool) -> None:
    """Change a tenant's name, weight or quota.

    Open jobs above a lowered quota continue. A new weight takes effect within seconds, for jobs submitted
    from then on.
    """
    from tether.store.tenants import change_tenant, check_tenant

    values = _values(name, weight, quota)
    if not values:
        raise InvalidRequest("there is nothing to change: give --name, --weight or --quota")
    with admin_store() as store:
        tenant = tenant_of(store, TenantId(tenant_id)).tenant_id
        check_tenant(tenant, values)
        act = act_of_user("tenants.set", tenant, tenant, **values)
        changed = audited(store).write(act, lambda connection: change_tenant(connection, tenant, values))
    assert changed is not None, "no tenant is ever removed"
    _say(changed, f"Tenant {tenant_id} was changed.", is_json=is_json)


tenants.add_command(usage)


def _values(name: str | None, weight: str | None, quota: str | None) -> TenantValues:
    values: TenantValues = {}
    if name is not None:
        values["name"] = name
    if weight is not None:
        try:
            values["weight"] = float(weight)
        except ValueError:
            raise InvalidRequest(f"--weight: {weight[:80]!r} is not a number") from None
    if quota is not None:
        try:
            values["quota"] = None if quota == "none" else int(quota)
        except ValueError:
            raise InvalidRequest(f"--quota: {quota[:80]!r} is neither an integer nor none") from None
    return values


def _say(tenant: Tenant, text: str, *, is_json: bool) -> None:
    if is_json:
        print_json(_tenant_to_json(tenant))
    else:
        say_aside(text)


def _tenant_to_json(tenant: Tenant) -> dict[str, Any]:
    return {"object": "tenant", **asdict(tenant)}
