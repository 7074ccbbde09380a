"""Sweeps of what is kept of quotas: frees what no open job holds, corrects windows, and deletes old ones.

What cannot be read costs itself: it is passed over, and keeps no sweep from the other tenants' rows.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Connection, Integer, Select, and_, cast, delete, func, or_, select, update
from sqlalchemy.sql.dml import ReturningDelete

from tether.ids import TenantId
from tether.spending import NOTHING, Amount, Span, Window, windows_at
from tether.store.amounts import held_tokens
from tether.store.bad_rows import decoded, undecoded
from tether.store.bulk import delete_some, is_postgres
from tether.store.schema import IS_FINAL, jobs, spending, spending_holds
from tether.store.spending import (
    WINDOW_KEY,
    SpendingState,
    freed_columns,
    is_window,
    move_windows,
    put_truth_for_freed,
)

MAX_SWEPT = 1_000
"""Holds that a sweep frees, and windows that it corrects."""

MAX_NUMBER = 2**31 - 1
"""Of a window."""


def sweep_spending(connection: Connection) -> int:
    """Free what jobs hold that have ended or are gone, and correct windows that differ from their holds.

    A hold is judged by its job's row alone, never by its age. Every transaction maintains this itself:
    a result other than 0 means that something else changed the database.

    Returns:
      Number of freed holds and corrected windows.
    """
    freed = connection.execute(_free_orphans(is_postgres(connection))).all()
    put_truth_for_freed(connection, freed, lambda row: NOTHING)
    return len(freed) + _put_right(connection)


def prune_spending(connection: Connection, before_ms: int, limit: int) -> int:
    """Delete windows that ended before that, in milliseconds since the epoch, and in which nothing is held.
    Return how many: ``limit`` at most."""
    current = windows_at(TenantId(""), before_ms)
    are_old = or_(*(and_(spending.c.span == each.span, spending.c.number < each.number) for each in current))
    return delete_some(connection, spending, and_(are_old, spending.c.held_requests == 0), WINDOW_KEY, limit)


@cache
def _free_orphans(postgres: bool) -> ReturningDelete[Any]:
    has_open_job = select(jobs.c.job_id).where(jobs.c.job_id == spending_holds.c.job_id, ~IS_FINAL).exists()
    # By the statement alone: an id that cannot be read keeps no other from being freed.
    orphans = (
        select(spending_holds.c.job_id)
        .where(~has_open_job)
        .order_by(spending_holds.c.job_id)
        .limit(MAX_SWEPT)
    )
    return (
        delete(spending_holds).where(spending_holds.c.job_id.in_(orphans)).returning(*freed_columns(postgres))
    )


def _held_by_jobs(postgres: bool, span: Span) -> Select[Any]:
    number = spending_holds.c.day if span is Span.DAY else spending_holds.c.month
    tokens = func.sum(held_tokens(postgres, spending_holds.c.tokens))
    amounts = (func.count().label("requests"), cast(tokens, BigInteger).label("tokens"))
    query = select(spending_holds.c.tenant_id, number.label("number"), *amounts)
    return query.group_by(spending_holds.c.tenant_id, number)


def _put_right(connection: Connection) -> int:
    number, postgres = 0, is_postgres(connection)
    for span in Span:
        held = _held_by_jobs(postgres, span).subquery()
        same = and_(
            spending.c.tenant_id == held.c.tenant_id,
            cast(spending.c.number, Integer) == held.c.number,
        )
        differs = or_(
            spending.c.held_requests != func.coalesce(held.c.requests, 0),
            spending.c.held_tokens != func.coalesce(held.c.tokens, 0),
        )
        tenant = undecoded(postgres, spending.c.tenant_id)
        wrong = select(tenant, spending.c.number).select_from(spending.outerjoin(held, same))
        # In SQLite a column of numbers may hold a text, which is above all numbers.
        is_number = spending.c.number.between(0, MAX_NUMBER)
        wrong = (
            wrong.where(spending.c.span == span, is_number, differs).order_by(*WINDOW_KEY).limit(MAX_SWEPT)
        )
        suspects = [
            Window(TenantId(text), span, row.number)
            for row in connection.execute(wrong)
            if (text := decoded(row.tenant_id)) is not None
        ]
        # Whoever changes a hold locks its window before it commits: under these locks the sums stand still.
        move_windows(connection, dict.fromkeys(suspects, SpendingState(NOTHING, NOTHING)))
        for window in suspects:
            of_window = _held_by_jobs(postgres, span).where(
                spending_holds.c.tenant_id == window.tenant_id,
                (spending_holds.c.day if span is Span.DAY else spending_holds.c.month) == window.number,
            )
            row = connection.execute(of_window).one_or_none()
            right = NOTHING if row is None else Amount(row.requests, row.tokens)
            changed = (
                update(spending)
                .where(is_window(window))
                .values(held_requests=right.requests, held_tokens=right.tokens)
            )
            number += connection.execute(changed).rowcount
    return number
