"""Whose jobs wait for a model: read where not all that is due can be placed, for a turn of each tenant's."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    Select,
    bindparam,
    func,
    literal_column,
    select,
)

from tether.ids import JobId, TenantId
from tether.jobs import Priority
from tether.store.schema import IS_PLACEABLE, jobs
from tether.store.waiting_jobs import MAX_TIME_MS, KeptModel

FIRST_TENANT = TenantId("")
"""Sorts before every tenant's id."""


class WaitingTenant(NamedTuple):
    """A tenant with jobs of a class that wait for a model, and since when the first is due."""

    tenant_id: TenantId
    due_at: int


def waiting_tenants(
    connection: Connection, kept: KeptModel, priority: Priority, after: TenantId, limit: int
) -> list[WaitingTenant]:
    """Tenants whose jobs of a class wait for a model, now or later, by id: ``limit`` that follow ``after``.

    It looks at one job of each, however many there are, unless a size is among the needs.
    """
    given = {**_given(kept, priority), "after": after, "limit": limit}
    found = connection.execute(_tenants(), given)
    # Columns of SQLite hold whatever was written to them.
    return [
        WaitingTenant(TenantId(row.tenant_id), row.due_at)
        for row in found
        if isinstance(row.tenant_id, str) and isinstance(row.due_at, int)
    ]


def waiting_ids_of(
    connection: Connection, kept: KeptModel, priority: Priority, tenant: TenantId, due_by: int, limit: int
) -> list[JobId]:
    """A tenant's jobs of a class that wait for a model and are due by a time in milliseconds since the epoch,
    the longest due first."""
    given = {**_given(kept, priority), "tenant_id": tenant, "due_by": due_by, "limit": limit}
    return list(connection.execute(_ids(), given).scalars())


def _given(kept: KeptModel, priority: Priority) -> dict[str, Any]:
    return {
        "model": kept.model,
        "model_version": kept.model_version,
        "needs": kept.needs,
        "needed_vram": kept.vram,
        "priority": priority.value,
    }


def _is_waiting(table: Any = jobs) -> tuple[ColumnElement[bool], ...]:
    equal = ("model", "model_version", "needs", "priority")
    return (
        IS_PLACEABLE,
        *(table.c[name] == bindparam(name) for name in equal),
        table.c.needed_vram <= bindparam("needed_vram", type_=BigInteger),
    )


@cache
def _tenants() -> Select[Any]:
    """A loose index scan (wiki.postgresql.org/wiki/Loose_indexscan)."""

    def next_tenant(after: ColumnElement[str]) -> ColumnElement[str]:
        return (
            select(func.min(jobs.c.tenant_id))
            .where(*_is_waiting(), jobs.c.tenant_id > after)
            .scalar_subquery()
        )

    one = literal_column("1", Integer)
    first = select(next_tenant(bindparam("after")).label("tenant_id"), one.label("n"))
    found = first.cte("found", recursive=True)
    found = found.union_all(
        select(next_tenant(found.c.tenant_id), found.c.n + 1).where(
            found.c.tenant_id.is_not(None), found.c.n < bindparam("limit")
        )
    )
    due_at = (
        select(func.min(jobs.c.due_at))
        .where(
            *_is_waiting(),
            jobs.c.tenant_id == found.c.tenant_id,
            # In SQLite a column of numbers may hold a text, which is above all numbers.
            jobs.c.due_at < literal_column(str(MAX_TIME_MS), BigInteger),
        )
        .scalar_subquery()
    )
    return select(found.c.tenant_id, due_at.label("due_at")).where(found.c.tenant_id.is_not(None))


@cache
def _ids() -> Select[Any]:
    return (
        select(jobs.c.job_id)
        .where(
            *_is_waiting(), jobs.c.tenant_id == bindparam("tenant_id"), jobs.c.due_at <= bindparam("due_by")
        )
        .order_by(jobs.c.due_at, jobs.c.job_id)
        .limit(bindparam("limit"))
    )
