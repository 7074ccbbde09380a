"""Tenants: owners of jobs, with their shares and quotas."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypedDict

from sqlalchemy import Connection, select, update

from tether.errors import InvalidRequest
from tether.ids import TenantId
from tether.store.bulk import insert_into, is_postgres
from tether.store.rows import AnyRow
from tether.store.schema import tenants

MIN_WEIGHT = 0.001
MAX_WEIGHT = 1_000
MAX_QUOTA = 2**31 - 1
MAX_TENANT_NAME_CHARACTERS = 100

_TENANT_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\Z")


@dataclass(frozen=True)
class Tenant:
    """One tenant.

    Attributes:
      weight: Its share of a contended pool, relative to other tenants; above 0.
      quota: Maximum number of open jobs; None is unlimited.
    """

    tenant_id: TenantId
    name: str
    weight: float
    quota: int | None
    created_at: int


class TenantValues(TypedDict, total=False):
    """What can be changed of a tenant; see :class:`Tenant`."""

    name: str
    weight: float
    quota: int | None


def check_tenant(tenant_id: TenantId, values: TenantValues) -> None:
    """Check the id and values of a tenant.

    Raises:
      InvalidRequest: They are invalid.
    """
    if not _TENANT_ID.match(tenant_id):
        raise InvalidRequest(
            f"{tenant_id[:80]!r} cannot be a tenant's id: use a to z, 0 to 9, '_' and '-', at most 64 of "
            "them, the first one a letter or a digit"
        )
    name, weight, quota = values.get("name", ""), values.get("weight", 1.0), values.get("quota")
    if len(name) > MAX_TENANT_NAME_CHARACTERS or not name.isprintable():
        raise InvalidRequest(
            f"the name of a tenant must be at most {MAX_TENANT_NAME_CHARACTERS} printable characters"
        )
    if not MIN_WEIGHT <= weight <= MAX_WEIGHT:
        raise InvalidRequest(
            f"the weight of a tenant must be from {MIN_WEIGHT} to {MAX_WEIGHT}, not {weight}"
        )
    if quota is not None and not 0 <= quota <= MAX_QUOTA:
        raise InvalidRequest(f"the quota of a tenant must be from 0 to {MAX_QUOTA}, not {quota}")


def tenant(connection: Connection, tenant_id: TenantId) -> Tenant | None:
    """One tenant, or None."""
    row = connection.execute(select(tenants).where(tenants.c.tenant_id == tenant_id)).one_or_none()
    return None if row is None else _tenant(row)


def all_tenants(connection: Connection) -> list[Tenant]:
    """All tenants, by id."""
    return [_tenant(row) for row in connection.execute(select(tenants).order_by(tenants.c.tenant_id))]


def create_tenant(connection: Connection, created: Tenant) -> bool:
    """Create a tenant. Return False if there already is one with this id, which is left unchanged."""
    insert = insert_into(is_postgres(connection), tenants).on_conflict_do_nothing()
    made = connection.execute(insert.returning(tenants.c.tenant_id), vars(created))
    return made.one_or_none() is not None


def change_tenant(connection: Connection, tenant_id: TenantId, values: TenantValues) -> Tenant | None:
    """Change the given values of a tenant, and return all of it; None if there is none.

    Open jobs above a lowered quota continue, and jobs keep the weight that they were submitted with.
    """
    if values:
        connection.execute(update(tenants).where(tenants.c.tenant_id == tenant_id).values(**values))
    return tenant(connection, tenant_id)


def _tenant(row: AnyRow) -> Tenant:
    return Tenant(**row._mapping)
