"""Whose jobs wait for a model: read where not all that is due can be placed, for a turn of each tenant's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    Select,
    Text,
    bindparam,
    cast,
    literal_column,
    select,
    true,
    union_all,
)

from tether.ids import JobId, TenantId
from tether.jobs import JobState, Priority
from tether.store.schema import IS_PLACEABLE, jobs
from tether.store.waiting_jobs import MAX_TIME_MS, KeptModel

FIRST_TENANT = TenantId("")
"""Sorts before every tenant's id."""


class WaitingTenant(NamedTuple):
    """A tenant with jobs of a class that wait for a model, and since when the first is due; ``MAX_TIME_MS``
    where that cannot be read of any."""

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
    # Columns of SQLite hold whatever was written to them. A tenant of whose jobs none has a time stays in the
    # page: one that is not full is the last.
    return [
        WaitingTenant(TenantId(row.tenant_id), MAX_TIME_MS if row.due_at is None else row.due_at)
        for row in found
        if isinstance(row.tenant_id, str)
    ]


def waiting_ids_of(
    connection: Connection, kept: KeptModel, priority: Priority, tenant: TenantId, due_by: int, limit: int
) -> list[JobId]:
    """A tenant's jobs of a class that wait for a model and are due by a time in milliseconds since the epoch,
    the longest due first."""
    given = {**_given(kept, priority), "tenant_id": tenant, "due_by": due_by, "limit": limit}
    return list(connection.execute(_ids(), given).scalars())


class PostponedJobs(NamedTuple):
    """Which jobs are asked for; times in milliseconds since the epoch.

    Attributes:
      before_ms: They were postponed before that.
      now_ms: They may have begun by then, and are due later.
      due_by_ms: They are due by that.
    """

    kept: KeptModel
    tenant: TenantId
    before_ms: int
    now_ms: int
    due_by_ms: int


def postponed_ids(connection: Connection, wanted: PostponedJobs, limit: int) -> list[JobId]:
    """A tenant's jobs that wait for a model and were made due later, the soonest first of each class."""
    ids: list[JobId] = []
    times = {"before": wanted.before_ms, "now_ms": wanted.now_ms, "due_by": wanted.due_by_ms}
    for priority in Priority:
        if len(ids) < limit:
            given = {
                **_given(wanted.kept, priority),
                **times,
                "tenant_id": wanted.tenant,
                "limit": limit - len(ids),
            }
            ids += connection.execute(_postponed_ids(), given).scalars()
    return ids


def waiting_ids_of_no_class(connection: Connection, kept: KeptModel, due_by: int, limit: int) -> list[JobId]:
    """Jobs that wait for a model and are due by a time in milliseconds since the epoch, and whose class is
    none that there is."""
    given = {**_given(kept), "due_by": due_by, "limit": limit}
    return list(connection.execute(_ids_of_no_class(), given).scalars())


def _given(kept: KeptModel, priority: Priority | None = None) -> dict[str, Any]:
    of_class = {} if priority is None else {"priority": priority.value}
    return {
        "model": kept.model,
        "model_version": kept.model_version,
        "needs": kept.needs,
        "needed_vram": kept.vram,
        **of_class,
    }


_MODEL = ("model", "model_version", "needs")


def _is_waiting(equal: Sequence[str] = (*_MODEL, "priority")) -> tuple[ColumnElement[bool], ...]:
    return (
        IS_PLACEABLE,
        *(jobs.c[name] == bindparam(name) for name in equal),
        jobs.c.needed_vram <= bindparam("needed_vram", type_=BigInteger),
    )


_IN_TURN = (jobs.c.tenant_id, jobs.c.due_at, jobs.c.job_id)
"""The order of the index of turns, which no other index has: by less Postgres may choose one in which it goes
over the jobs of all tenants, or over all that ever were."""


def _is_of(whose: ColumnElement[str]) -> tuple[ColumnElement[bool], ...]:
    # As a range: for one that is equal the tenant is none of the order.
    return jobs.c.tenant_id >= whose, jobs.c.tenant_id <= whose


@cache
def _tenants() -> Select[Any]:
    """A loose index scan (wiki.postgresql.org/wiki/Loose_indexscan)."""
    one = literal_column("1", Integer)

    def next_tenant(after: ColumnElement[str]) -> ColumnElement[str]:
        return (
            select(jobs.c.tenant_id)
            .where(*_is_waiting(), jobs.c.tenant_id > after)
            .order_by(*_IN_TURN)
            .limit(one)
            .scalar_subquery()
        )

    first = select(next_tenant(bindparam("after")).label("tenant_id"), one.label("n"))
    found = first.cte("found", recursive=True)
    found = found.union_all(
        select(next_tenant(found.c.tenant_id), found.c.n + 1).where(
            found.c.tenant_id.is_not(None), found.c.n < bindparam("limit")
        )
    )
    due_at = (
        select(cast(jobs.c.due_at, BigInteger))
        .where(
            *_is_waiting(),
            *_is_of(found.c.tenant_id),
            # In SQLite a column of numbers may hold a text, which is above all numbers.
            jobs.c.due_at < literal_column(str(MAX_TIME_MS), BigInteger),
        )
        .order_by(*_IN_TURN)
        .limit(one)
        .scalar_subquery()
    )
    return select(found.c.tenant_id, due_at.label("due_at")).where(found.c.tenant_id.is_not(None))


@cache
def _ids() -> Select[Any]:
    first = (
        select(jobs.c.job_id, jobs.c.due_at)
        .where(*_is_waiting(), *_is_of(bindparam("tenant_id")))
        .order_by(*_IN_TURN)
        .limit(bindparam("limit"))
        .subquery()
    )
    query = select(first.c.job_id).where(first.c.due_at <= bindparam("due_by"))
    return query.order_by(first.c.due_at, first.c.job_id)


@cache
def _postponed_ids() -> Select[Any]:
    is_postponed = (
        jobs.c.due_at > bindparam("now_ms"),
        jobs.c.due_at <= bindparam("due_by"),
        jobs.c.not_before <= bindparam("now_ms"),
        jobs.c.updated_at < bindparam("before"),
        jobs.c.state == JobState.PARKED.value,
    )
    query = select(jobs.c.job_id).where(*_is_waiting(), *_is_of(bindparam("tenant_id")), *is_postponed)
    return query.order_by(*_IN_TURN).limit(bindparam("limit"))


@cache
def _ids_of_no_class() -> Select[Any]:
    # What lies before, between and behind the classes: each is a look into the index.
    limits = [None, *sorted(priority.value for priority in Priority), None]
    parts = [
        select(jobs.c.job_id)
        .where(
            *_is_waiting(_MODEL),
            true() if after is None else jobs.c.priority > literal_column(f"'{after}'", Text),
            true() if before is None else jobs.c.priority < literal_column(f"'{before}'", Text),
            jobs.c.due_at <= bindparam("due_by"),
        )
        .limit(bindparam("limit"))
        .subquery()
        for after, before in pairwise(limits)
    ]
    found = union_all(*map(select, parts)).subquery()
    return select(found.c.job_id).limit(bindparam("limit"))
