"""Tenants: whose jobs are whose, how they share, and how many each may have open."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from tether.store.bulk import insert_into, is_postgres
from tether.store.rows import AnyRow
from tether.store.schema import tenants


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


def tenant(connection: Connection, tenant_id: str) -> Tenant | None:
    """One tenant, or None."""
    row = connection.execute(select(tenants).where(tenants.c.tenant_id == tenant_id)).one_or_none()
    return None if row is None else _tenant(row)


def all_tenants(connection: Connection) -> list[Tenant]:
    """All tenants, by id."""
    return [_tenant(row) for row in connection.execute(select(tenants).order_by(tenants.c.tenant_id))]


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
