"""What tenants have spent of their quotas of a day and a month, and what open jobs hold of them.

A job of a tenant with such quotas holds one request and its estimated tokens in the windows in which it is
accepted, and what it has truly spent takes their place in the transaction that ends it. The rows of
the windows are locked in their order, before any counter of :mod:`tether.store.holds`: no two transactions
wait for each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Connection, Integer, Select, and_, cast, delete, func, or_, select, update
from sqlalchemy.sql.dml import ReturningDelete, ReturningInsert

from tether.ids import JobId, TenantId
from tether.spending import (
    NOTHING,
    Amount,
    Overspent,
    Span,
    SpendingQuotas,
    Window,
    overspent,
    windows_at,
)
from tether.store.bulk import insert_into, insert_rows, is_among, is_postgres
from tether.store.schema import IS_FINAL, jobs, spending, spending_holds

MAX_SWEPT = 1_000
"""Holds that a sweep frees, and windows that it corrects."""


@dataclass(frozen=True)
class WantedSpending:
    """What a job is to hold.

    Attributes:
      tokens: Of its prompt and answer, estimated.
      now_ms: When it is accepted, in milliseconds since the epoch.
    """

    job_id: JobId
    tenant_id: TenantId
    quotas: SpendingQuotas
    tokens: int
    now_ms: int

    @property
    def amount(self) -> Amount:
        return Amount(1, self.tokens)

    @property
    def windows(self) -> tuple[Window, Window]:
        return windows_at(self.tenant_id, self.now_ms)


class SpendingState(NamedTuple):
    """What a window has: held by open jobs, and spent by ended ones."""

    held: Amount
    spent: Amount


_Moves = dict[Window, SpendingState]


def hold_spending(connection: Connection, wanted: Sequence[WantedSpending]) -> dict[JobId, Overspent]:
    """Hold what jobs may spend, each if its windows have room. Return why the others have none."""
    if not wanted:
        return {}
    windows = {window for each in wanted for window in each.windows}
    found = _move(connection, dict.fromkeys(windows, SpendingState(NOTHING, NOTHING)))
    so_far = {window: state.held.plus(state.spent) for window, state in found.items()}
    refused: dict[JobId, Overspent] = {}
    moves: _Moves = defaultdict(lambda: SpendingState(NOTHING, NOTHING))
    held = []
    for each in wanted:
        refusal = overspent(each.quotas, each.amount, so_far, each.windows)
        if refusal is not None:
            refused[each.job_id] = refusal
            continue
        held.append(each)
        for window in each.windows:
            so_far[window] = so_far[window].plus(each.amount)
            moves[window] = SpendingState(moves[window].held.plus(each.amount), NOTHING)
    insert_rows(connection, spending_holds, [_hold_columns(each) for each in held])
    _move(connection, moves)
    return refused


def settle_spending(
    connection: Connection, job_ids: Collection[JobId], truth: Callable[[JobId], Amount]
) -> None:
    """Put what jobs have truly spent in the place of what they held. Those that held none are passed over."""
    if not job_ids:
        return
    moves: _Moves = defaultdict(lambda: SpendingState(NOTHING, NOTHING))
    for row in connection.execute(_free(is_postgres(connection)), {"ids": list(job_ids)}):
        held, spent = Amount(1, row.tokens), truth(JobId(row.job_id))
        for span in Span:
            window = Window(TenantId(row.tenant_id), span, row.day if span is Span.DAY else row.month)
            state = moves[window]
            moves[window] = SpendingState(state.held.minus(held), state.spent.plus(spent))
    _move(connection, moves)


def free_spending(connection: Connection, job_ids: Collection[JobId]) -> None:
    """Free what jobs hold that were refused after all."""
    settle_spending(connection, job_ids, lambda job_id: NOTHING)


def spending_in(connection: Connection, windows: Collection[Window]) -> dict[Window, SpendingState]:
    """What is held and spent in these windows."""
    found = dict.fromkeys(windows, SpendingState(NOTHING, NOTHING))
    for window in windows:
        row = connection.execute(select(*_AMOUNTS).where(_is(window))).one_or_none()
        if row is not None:
            found[window] = _state(row)
    return found


def sweep_spending(connection: Connection) -> int:
    """Free what jobs hold that have ended or are gone, and correct windows that differ from their holds.

    A hold is judged by its job's row alone, never by its age. Every transaction maintains this itself:
    a result other than 0 means that something else changed the database.

    Returns:
      Number of freed holds and corrected windows.
    """
    has_open_job = select(jobs.c.job_id).where(jobs.c.job_id == spending_holds.c.job_id, ~IS_FINAL).exists()
    orphans = connection.execute(
        select(spending_holds.c.job_id)
        .where(~has_open_job)
        .order_by(spending_holds.c.job_id)
        .limit(MAX_SWEPT)
    )
    freed = [JobId(job_id) for job_id in orphans.scalars()]
    free_spending(connection, freed)
    return len(freed) + _put_right(connection)


def prune_spending(connection: Connection, before_ms: int, limit: int) -> int:
    """Delete windows that ended before that, in milliseconds since the epoch, and in which nothing is held.
    Return how many: ``limit`` at most."""
    current = windows_at(TenantId(""), before_ms)
    are_old = or_(*(and_(spending.c.span == each.span, spending.c.number < each.number) for each in current))
    old = (
        select(*_KEYS)
        .where(are_old, spending.c.held_requests == 0)
        .order_by(*_KEYS)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    found = [_window(row) for row in connection.execute(old)]
    if found:
        connection.execute(delete(spending).where(or_(*map(_is, found))))
    return len(found)


_KEYS = (spending.c.tenant_id, spending.c.span, spending.c.number)
_AMOUNTS = tuple(
    # As a number whatever it is: SQLite keeps a text in a column of numbers.
    cast(spending.c[name], BigInteger).label(name)
    for name in ("held_requests", "held_tokens", "spent_requests", "spent_tokens")
)


def _move(connection: Connection, moves: Mapping[Window, SpendingState]) -> dict[Window, SpendingState]:
    """Change windows, lock them until the transaction ends, and return what they have then."""
    if not moves:
        return {}
    rows = [
        {
            "tenant_id": window.tenant_id,
            "span": window.span.value,
            "number": window.number,
            "held_requests": moves[window].held.requests,
            "held_tokens": moves[window].held.tokens,
            "spent_requests": moves[window].spent.requests,
            "spent_tokens": moves[window].spent.tokens,
        }
        for window in sorted(moves)
    ]
    moved = connection.execute(_upsert(is_postgres(connection)), rows)
    return {_window(row): _state(row) for row in moved}


def _hold_columns(wanted: WantedSpending) -> dict[str, Any]:
    day, month = wanted.windows
    return {
        "job_id": wanted.job_id,
        "tenant_id": wanted.tenant_id,
        "day": day.number,
        "month": month.number,
        "tokens": wanted.tokens,
        "created_at": wanted.now_ms,
    }


def _window(row: Any) -> Window:
    return Window(TenantId(row.tenant_id), Span(row.span), row.number)


def _state(row: Any) -> SpendingState:
    return SpendingState(
        Amount(row.held_requests, row.held_tokens), Amount(row.spent_requests, row.spent_tokens)
    )


def _is(window: Window) -> Any:
    return and_(
        spending.c.tenant_id == window.tenant_id,
        spending.c.span == window.span,
        spending.c.number == window.number,
    )


@cache
def _upsert(postgres: bool) -> ReturningInsert[Any]:
    insert = insert_into(postgres, spending)
    names = [column.name for column in _AMOUNTS]
    moved = insert.on_conflict_do_update(
        index_elements=list(_KEYS),
        set_={name: spending.c[name] + insert.excluded[name] for name in names},
    )
    return moved.returning(*_KEYS, *(spending.c[name] for name in names))


@cache
def _free(postgres: bool) -> ReturningDelete[Any]:
    these = delete(spending_holds).where(is_among(postgres, spending_holds.c.job_id))
    return these.returning(
        *(spending_holds.c[name] for name in ("job_id", "tenant_id", "day", "month", "tokens"))
    )


def _held_by_jobs(span: Span) -> Select[Any]:
    number = spending_holds.c.day if span is Span.DAY else spending_holds.c.month
    amounts = (
        func.count().label("requests"),
        cast(func.sum(spending_holds.c.tokens), BigInteger).label("tokens"),
    )
    query = select(spending_holds.c.tenant_id, number.label("number"), *amounts)
    return query.group_by(spending_holds.c.tenant_id, number)


def _put_right(connection: Connection) -> int:
    number = 0
    for span in Span:
        held = _held_by_jobs(span).subquery()
        same = and_(
            spending.c.tenant_id == held.c.tenant_id,
            cast(spending.c.number, Integer) == held.c.number,
        )
        differs = or_(
            spending.c.held_requests != func.coalesce(held.c.requests, 0),
            spending.c.held_tokens != func.coalesce(held.c.tokens, 0),
        )
        wrong = select(*_KEYS).select_from(spending.outerjoin(held, same))
        wrong = wrong.where(spending.c.span == span, differs).order_by(*_KEYS).limit(MAX_SWEPT)
        suspects = [_window(row) for row in connection.execute(wrong)]
        # Whoever changes a hold locks its window before it commits: under these locks the sums stand still.
        _move(connection, dict.fromkeys(suspects, SpendingState(NOTHING, NOTHING)))
        for window in suspects:
            of_window = _held_by_jobs(span).where(
                spending_holds.c.tenant_id == window.tenant_id,
                (spending_holds.c.day if span is Span.DAY else spending_holds.c.month) == window.number,
            )
            row = connection.execute(of_window).one_or_none()
            right = NOTHING if row is None else Amount(row.requests, row.tokens)
            changed = (
                update(spending)
                .where(_is(window))
                .values(held_requests=right.requests, held_tokens=right.tokens)
            )
            number += connection.execute(changed).rowcount
    return number
