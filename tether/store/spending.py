"""What tenants have spent of their quotas of a day and a month, and what open jobs hold of them.

A job of a tenant with such quotas holds one request and its estimated tokens in the windows in which it is
accepted, and what it has truly spent takes their place in the transaction that ends it. The rows of
the windows are locked in their order, before any counter of :mod:`tether.store.holds`: no two transactions
wait for each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    and_,
    cast,
    delete,
    select,
)
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
from tether.store.amounts import held_tokens, kept_amount, saturating_sum
from tether.store.bad_rows import decoded, undecoded
from tether.store.bulk import insert_into, insert_rows, is_among, is_postgres
from tether.store.rows import AnyRow
from tether.store.schema import spending, spending_holds


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


WindowMoves = dict[Window, SpendingState]


def hold_spending(connection: Connection, wanted: Sequence[WantedSpending]) -> dict[JobId, Overspent]:
    """Hold what jobs may spend, each if its windows have room. Return why the others have none."""
    if not wanted:
        return {}
    all_of_it: WindowMoves = defaultdict(lambda: SpendingState(NOTHING, NOTHING))
    for each in wanted:
        _hold(all_of_it, each, each.amount)
    # All is held first, and what has no room for it is freed again: mostly there is nothing.
    so_far = {
        window: state.held.plus(state.spent).minus(all_of_it[window].held)
        for window, state in move_windows(connection, all_of_it).items()
    }
    refused: dict[JobId, Overspent] = {}
    back: WindowMoves = defaultdict(lambda: SpendingState(NOTHING, NOTHING))
    held = []
    for each in wanted:
        refusal = overspent(each.quotas, each.amount, so_far, each.windows)
        if refusal is not None:
            refused[each.job_id] = refusal
            _hold(back, each, NOTHING.minus(each.amount))
            continue
        held.append(each)
        for window in each.windows:
            so_far[window] = so_far[window].plus(each.amount)
    insert_rows(connection, spending_holds, [_hold_columns(each) for each in held])
    move_windows(connection, back)
    return refused


def _hold(moves: WindowMoves, wanted: WantedSpending, amount: Amount) -> None:
    for window in wanted.windows:
        moves[window] = SpendingState(moves[window].held.plus(amount), NOTHING)


def settle_spending(
    connection: Connection, job_ids: Collection[JobId], truth: Callable[[JobId], Amount]
) -> None:
    """Put what jobs have truly spent in the place of what they held. Those that held none are passed over."""
    if not job_ids:
        return
    freed = connection.execute(_free(is_postgres(connection)), {"ids": list(job_ids)})
    put_truth_for_freed(connection, freed, lambda row: truth(JobId(row.job_id)))


def put_truth_for_freed(
    connection: Connection, freed: Iterable[AnyRow], truth: Callable[[AnyRow], Amount]
) -> None:
    moves: WindowMoves = defaultdict(lambda: SpendingState(NOTHING, NOTHING))
    for row in freed:
        tenant = decoded(row.tenant_id)
        if tenant is None:
            # It is of no tenant. A sweep puts right what was held for it.
            continue
        held, spent = Amount(1, row.tokens), truth(row)
        for span in Span:
            window = Window(TenantId(tenant), span, row.day if span is Span.DAY else row.month)
            state = moves[window]
            moves[window] = SpendingState(state.held.minus(held), state.spent.plus(spent))
    move_windows(connection, moves)


def free_spending(connection: Connection, job_ids: Collection[JobId]) -> None:
    """Free what jobs hold that were refused after all."""
    settle_spending(connection, job_ids, lambda job_id: NOTHING)


def spending_in(connection: Connection, windows: Collection[Window]) -> dict[Window, SpendingState]:
    """What is held and spent in these windows."""
    found = dict.fromkeys(windows, SpendingState(NOTHING, NOTHING))
    for window in windows:
        row = connection.execute(select(*_AMOUNTS).where(is_window(window))).one_or_none()
        if row is not None:
            found[window] = _state(row)
    return found


WINDOW_KEY = (spending.c.tenant_id, spending.c.span, spending.c.number)
_AMOUNTS = tuple(
    # As a number whatever it is: SQLite keeps a text in a column of numbers.
    cast(spending.c[name], BigInteger).label(name)
    for name in ("held_requests", "held_tokens", "spent_requests", "spent_tokens")
)


def move_windows(
    connection: Connection, moves: Mapping[Window, SpendingState]
) -> dict[Window, SpendingState]:
    """Change windows, lock them until the transaction ends, and return what they have then."""
    if not moves:
        return {}
    rows = [
        {
            "tenant_id": window.tenant_id,
            "span": window.span.value,
            "number": window.number,
            "held_requests": kept_amount(moves[window].held.requests),
            "held_tokens": kept_amount(moves[window].held.tokens),
            "spent_requests": kept_amount(moves[window].spent.requests),
            "spent_tokens": kept_amount(moves[window].spent.tokens),
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


def is_window(window: Window) -> Any:
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
        index_elements=list(WINDOW_KEY),
        set_={name: saturating_sum(postgres, spending.c[name], insert.excluded[name]) for name in names},
    )
    return moved.returning(*WINDOW_KEY, *(spending.c[name] for name in names))


def freed_columns(postgres: bool) -> tuple[ColumnElement[Any], ...]:
    return (
        undecoded(postgres, spending_holds.c.tenant_id),
        *(cast(spending_holds.c[name], Integer).label(name) for name in ("day", "month")),
        held_tokens(postgres, spending_holds.c.tokens).label("tokens"),
    )


@cache
def _free(postgres: bool) -> ReturningDelete[Any]:
    these = delete(spending_holds).where(is_among(postgres, spending_holds.c.job_id))
    return these.returning(spending_holds.c.job_id, *freed_columns(postgres))
