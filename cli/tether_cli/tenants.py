"""`tether tenants`: make, list and change tenants, in the database itself."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from tether.errors import InvalidRequest
from tether_cli.admin_store import admin_store, tenant_of
from tether_cli.tables import print_json, print_table, time_text

if TYPE_CHECKING:
    from tether.store.tenants import Tenant, TenantValues

as_json = click.option("--json", "is_json", is_flag=True, help="Print one JSON document.")
name_option = click.option("--name", help="For people.")
weight_option = click.option(
    "--weight", metavar="NUMBER", help="Its share of a pool where several want it, relative to the others'."
)
quota_option = click.option(
    "--quota", metavar="N|none", help="Most jobs that it may have open at once; none is any number."
)


@click.group()
def tenants() -> None:
    """Make, list and change tenants.

    A tenant has jobs and API keys of its own, a share of the fleet, and a quota. These verbs work on the
    database itself: the one that database.url names; where that is left at its default, that of the
    `tether up` on this machine, if one runs.
    """


@tenants.command()
@click.argument("tenant_id", metavar="ID")
@name_option
@weight_option
@quota_option
@as_json
def create(tenant_id: str, name: str | None, weight: str | None, quota: str | None, is_json: bool) -> None:
    """Make a tenant. One that is there already is left as it is, and that is an error.

    ID is of a to z, 0 to 9, '_' and '-', and stays: it is in every job of the tenant.
    """
    from tether.store.tenants import Tenant, check_tenant, create_tenant

    values = _values(name, weight, quota)
    check_tenant(tenant_id, values)
    made = Tenant(
        tenant_id,
        values.get("name", tenant_id),
        values.get("weight", 1.0),
        values.get("quota"),
        time.time_ns() // 1_000_000,
    )
    with admin_store() as store:
        if not store.write_alone(create_tenant, made).result():
            raise InvalidRequest(
                f"there is a tenant {tenant_id!r} already: `tether tenants set` changes it, or use another id"
            )
        place = store.place
    _say(made, f"There is a new tenant {tenant_id} in {place}.", is_json=is_json)


@tenants.command("list")
@as_json
def list_tenants(is_json: bool) -> None:
    """List tenants, by id."""
    from tether.store.tenants import all_tenants

    with admin_store() as store:
        found = store.read(all_tenants)
    if is_json:
        print_json({"object": "list", "data": [_tenant_to_json(tenant) for tenant in found]})
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
            for tenant in found
        ],
    )


@tenants.command("set")
@click.argument("tenant_id", metavar="ID")
@name_option
@weight_option
@quota_option
@as_json
def change(tenant_id: str, name: str | None, weight: str | None, quota: str | None, is_json: bool) -> None:
    """Change a tenant's name, share or quota.

    Open jobs above a lowered quota go on. A new weight counts within seconds, for jobs that are submitted
    from then on.
    """
    from tether.store.tenants import change_tenant, check_tenant

    values = _values(name, weight, quota)
    if not values:
        raise InvalidRequest("there is nothing to change: give --name, --weight or --quota")
    with admin_store() as store:
        tenant_of(store, tenant_id)
        check_tenant(tenant_id, values)
        changed = store.write_alone(change_tenant, tenant_id, values).result()
    assert changed is not None, "no tenant is ever removed"
    _say(changed, f"Tenant {tenant_id} was changed.", is_json=is_json)


def _values(name: str | None, weight: str | None, quota: str | None) -> TenantValues:
    values: TenantValues = {}
    if name is not None:
        values["name"] = name
    if weight is not None:
        try:
            values["weight"] = float(weight)
        except ValueError:
            raise InvalidRequest(f"--weight: {weight[:80]!r} is no number") from None
    if quota is not None:
        try:
            values["quota"] = None if quota == "none" else int(quota)
        except ValueError:
            raise InvalidRequest(f"--quota: {quota[:80]!r} is neither a whole number nor none") from None
    return values


def _say(tenant: Tenant, text: str, *, is_json: bool) -> None:
    if is_json:
        print_json(_tenant_to_json(tenant))
    else:
        click.echo(text, err=True)


def _tenant_to_json(tenant: Tenant) -> dict[str, Any]:
    return {"object": "tenant", **asdict(tenant)}
