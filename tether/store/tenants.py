"""Tenants: whose jobs are whose, how they share, and how many each may have open."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypedDict

from sqlalchemy import Connection, select, update

from tether.errors import InvalidRequest
from tether.store.bulk import insert_into, is_postgres
from tether.store.rows import AnyRow
from tether.store.schema import tenants

LARGEST_WEIGHT = 1_000
LARGEST_QUOTA = 2**31 - 1
LONGEST_NAME = 100

_TENANT_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\Z")


@dataclass(frozen=True)
class Tenant:
    """One tenant.

    Attributes:
      weight: Its share of a pool where several want it, relative to the others'; above 0.
      quota: Most jobs that it may have open at once; None is any number.
    """

    tenant_id: str
    name: str
    weight: float
    quota: int | None
    created_at: int


class TenantValues(TypedDict, total=False):
    """What can be changed of a tenant; see :class:`Tenant`."""

    name: str
    weight: float
    quota: int | None


def check_tenant(tenant_id: str, values: TenantValues) -> None:
    """Check that a tenant may be called and be like this.

    Raises:
      InvalidRequest: It may not.
    """
    if not _TENANT_ID.match(tenant_id):
        raise InvalidRequest(
            f"{tenant_id[:80]!r} cannot be a tenant's id: use a to z, 0 to 9, '_' and '-', at most 64 of "
            "them, the first one a letter or a digit"
        )
    name, weight, quota = values.get("name", ""), values.get("weight", 1.0), values.get("quota")
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise InvalidRequest(f"the name of a tenant must be at most {LONGEST_NAME} printable characters")
    if not 0 < weight <= LARGEST_WEIGHT:
        raise InvalidRequest(
            f"the weight of a tenant must be above 0 and at most {LARGEST_WEIGHT}, and not {weight}"
        )
    if quota is not None and not 0 <= quota <= LARGEST_QUOTA:
        raise InvalidRequest(f"the quota of a tenant must be from 0 to {LARGEST_QUOTA}, and not {quota}")


def tenant(connection: Connection, tenant_id: str) -> Tenant | None:
    """One tenant, or None."""
    row = connection.execute(select(tenants).where(tenants.c.tenant_id == tenant_id)).one_or_none()
    return None if row is None else _tenant(row)


def all_tenants(connection: Connection) -> list[Tenant]:
    """All tenants, by id."""
    return [_tenant(row) for row in connection.execute(select(tenants).order_by(tenants.c.tenant_id))]


def create_tenant(connection: Connection, created: Tenant) -> bool:
    """Create a tenant. False where there is one of this id, which is left as it is."""
    insert = insert_into(is_postgres(connection), tenants).on_conflict_do_nothing()
    made = connection.execute(insert.returning(tenants.c.tenant_id), vars(created))
    return made.one_or_none() is not None


def change_tenant(connection: Connection, tenant_id: str, values: TenantValues) -> Tenant | None:
    """Change what is given of a tenant, and answer with all of it; None where there is none.

    Open jobs above a lowered quota go on, and jobs keep the weight that they were submitted with.
    """
    if values:
        connection.execute(update(tenants).where(tenants.c.tenant_id == tenant_id).values(**values))
    return tenant(connection, tenant_id)


def save_tenant(connection: Connection, saved: Tenant) -> None:
    """Create a tenant, or change its name, weight and quota. Open jobs above a lowered quota go on."""
    insert = insert_into(is_postgres(connection), tenants)
    statement = insert.on_conflict_do_update(
        index_elements=[tenants.c.tenant_id],
        set_={name: insert.excluded[name] for name in ("name", "weight", "quota")},
    )
    connection.execute(statement, vars(saved))


def _tenant(row: AnyRow) -> Tenant:
    return Tenant(**row._mapping)
