"""What jobs hold: of their tenant's quota and of their pool's capacity, and the counters of both.

A counter is the sum of the holds of its kind and name; one of the kind ``share`` that of a tenant's holds of
a pool's capacity. It is changed in the transaction that changes the
holds, after everything else in it, and several in the order of (kind, name): the rows that most transactions
share are locked for the shortest time, and no two transactions wait for each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Select,
    Subquery,
    Text,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    literal_column,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.sql.dml import ReturningDelete, ReturningInsert

from tether.ids import JobId, PoolName, TenantId
from tether.store.amounts import saturating_sum
from tether.store.bad_rows import decoded, undecoded
from tether.store.bulk import insert_into, is_among, is_postgres
from tether.store.capacity import share_name
from tether.store.rows import AnyRow
from tether.store.schema import IS_FINAL, counters, holds, jobs, tenants

QUOTA: Final = "quota"
CAPACITY: Final = "capacity"
SHARE: Final = "share"

MAX_NAMES = 10_000
"""Counters that are read at once: statements take a bounded number of parameters."""

MAX_DROPPED = 10_000
"""Shares that a sweep deletes."""

MAX_OF_HOLD, MAX_OF_COUNTER = 2**20, 2**30
"""What a hold, and a counter, can have: more than that is damaged."""

Moves = Counter[tuple[str, str]]
"""By how much each counter, named by (kind, name), rises or falls."""


def move_counters(connection: Connection, moves: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """Change counters, lock them until the transaction ends, and return their new values."""
    if not moves:
        return {}
    rows = [{"kind": kind, "name": name, "held": moves[kind, name]} for kind, name in sorted(moves)]
    return {
        (row.kind, row.name): row.held for row in connection.execute(_move(is_postgres(connection)), rows)
    }


def depths(connection: Connection) -> dict[PoolName, int]:
    """Jobs with a hold on each pool's capacity. A counter whose name is no text is none of a pool."""
    found = connection.execute(_depths(is_postgres(connection)))
    return {PoolName(name): row.held for row in found if (name := decoded(row.name)) is not None}


def note_capacity(moves: Moves, pool: PoolName, tenant: TenantId) -> None:
    """Record that a tenant's job gets a hold on a pool's capacity."""
    moves[CAPACITY, pool] += 1
    moves[SHARE, share_name(pool, tenant)] += 1


def shares(connection: Connection, names: Collection[str]) -> dict[str, int]:
    """What tenants hold of pools, by :func:`~tether.store.capacity.share_name`; what is missing is 0."""
    statement, wanted = _shares(is_postgres(connection)), sorted(names)
    found: dict[str, int] = {}
    for start in range(0, len(wanted), MAX_NAMES):
        rows = connection.execute(statement, {"ids": wanted[start : start + MAX_NAMES]})
        found |= {row.name: row.held for row in rows}
    return found


def tenants_in_pool(connection: Connection, pool: PoolName) -> dict[TenantId, int]:
    """The tenants with a hold on a pool's capacity, and how many each has."""
    found = connection.execute(_tenants_in_pool(), {"pool": pool})
    return {row.tenant_id: row.held for row in found if isinstance(row.held, int)}


def free_holds(
    connection: Connection, job_ids: Collection[JobId], kinds: Collection[str], moves: Moves
) -> None:
    """Delete these jobs' holds of these kinds, and record in ``moves`` by how much the counters fall."""
    if not job_ids:
        return
    statement = _free(is_postgres(connection), tuple(kinds))
    _note(connection.execute(statement, {"ids": list(job_ids)}).all(), moves)


def sweep_holds(connection: Connection) -> int:
    """Free leaked holds of jobs that are final or deleted, correct counters that differ from their sum, and
    delete some of the shares that are used up: there is one for every tenant that ever had a job in a pool.

    A hold is judged by its job's row alone, never by its age. Every transaction maintains this itself:
    a result other than 0 means that something else changed the database.

    Returns:
      Number of freed holds and corrected counters.
    """
    has_open_job = select(jobs.c.job_id).where(jobs.c.job_id == holds.c.job_id, ~IS_FINAL).exists()
    moves: Moves = Counter()
    freed = connection.execute(
        delete(holds).where(~has_open_job).returning(*_freed(is_postgres(connection)))
    ).all()
    _note(freed, moves)
    move_counters(connection, moves)
    number = len(freed) + _put_right(connection)
    # After all else: nothing waits for a row that is skipped, and none of these locks is held for long.
    connection.execute(_DROP_EMPTY)
    return number


_AMOUNT = cast(
    case((holds.c.amount.between(0, MAX_OF_HOLD), holds.c.amount), else_=literal_column("1", Integer)),
    Integer,
).label("amount")
"""What a job holds; where that is damaged, one, as of nearly all jobs."""


def _freed(postgres: bool) -> tuple[ColumnElement[Any], ...]:
    return (
        holds.c.kind,
        undecoded(postgres, holds.c.name),
        _AMOUNT,
        undecoded(postgres, holds.c.tenant_id),
    )


def counted_holds() -> Subquery:
    """What counters are sums of: rows of ``kind``, ``name`` and ``amount``."""
    share = literal_column(f"'{SHARE}'", Text).label("kind")
    of_tenant = (holds.c.name + literal_column("' '") + holds.c.tenant_id).label("name")
    by_tenant = select(share, of_tenant, _AMOUNT)
    by_tenant = by_tenant.where(holds.c.kind == CAPACITY, holds.c.tenant_id != "")
    return union_all(select(holds.c.kind, holds.c.name, _AMOUNT), by_tenant).subquery("counted")


_HELD = cast(counters.c.held, Integer).label("held")
"""As a number whatever it is: SQLite keeps a text in a column of numbers."""

_EMPTY = (
    select(counters.c.name)
    .where(counters.c.kind == SHARE, counters.c.held == 0)
    .limit(MAX_DROPPED)
    .with_for_update(skip_locked=True)
)
_DROP_EMPTY = delete(counters).where(
    counters.c.kind == SHARE, counters.c.held == 0, counters.c.name.in_(_EMPTY)
)


@cache
def _depths(postgres: bool) -> Select[Any]:
    return select(undecoded(postgres, counters.c.name), _HELD).where(counters.c.kind == CAPACITY)


@cache
def _shares(postgres: bool) -> Select[Any]:
    query = select(counters.c.name, _HELD).where(counters.c.kind == SHARE)
    return query.where(is_among(postgres, counters.c.name))


@cache
def _tenants_in_pool() -> Select[Any]:
    # By way of the tenants: each is one look into the counters' key, in whatever order the database sorts.
    name = bindparam("pool", type_=Text) + " " + tenants.c.tenant_id
    joined = tenants.join(counters, and_(counters.c.kind == SHARE, counters.c.name == name))
    return select(tenants.c.tenant_id, counters.c.held).select_from(joined).where(counters.c.held > 0)


@cache
def _move(postgres: bool) -> ReturningInsert[Any]:
    insert = insert_into(postgres, counters)
    moved = insert.on_conflict_do_update(
        index_elements=[counters.c.kind, counters.c.name],
        set_={"held": saturating_sum(postgres, counters.c.held, insert.excluded.held, MAX_OF_COUNTER)},
    )
    return moved.returning(counters.c.kind, counters.c.name, counters.c.held)


@cache
def _free(postgres: bool, kinds: tuple[str, ...]) -> ReturningDelete[Any]:
    are_these = is_among(postgres, holds.c.job_id)
    return delete(holds).where(are_these, holds.c.kind.in_(kinds)).returning(*_freed(postgres))


def _note(freed: Sequence[AnyRow], moves: Moves) -> None:
    for hold in freed:
        name, tenant = decoded(hold.name), decoded(hold.tenant_id)
        # What cannot be read is of no counter that is known. A sweep puts right what it was counted in.
        if name is not None:
            moves[hold.kind, name] -= hold.amount
        if name is not None and hold.kind == CAPACITY and tenant:
            moves[SHARE, share_name(PoolName(name), TenantId(tenant))] -= hold.amount


def _put_right(connection: Connection) -> int:
    counted = counted_holds()
    sums = (
        select(counted.c.kind, counted.c.name, func.sum(counted.c.amount).label("amount"))
        .group_by(counted.c.kind, counted.c.name)
        .subquery()
    )
    held = func.coalesce(counters.c.held, 0)
    amount = func.coalesce(sums.c.amount, 0)
    same = and_(counters.c.kind == sums.c.kind, counters.c.name == sums.c.name)
    key = (func.coalesce(counters.c[name], sums.c[name]).label(name) for name in ("kind", "name"))
    wrong = (
        select(*(undecoded(is_postgres(connection), each) for each in key))
        .select_from(counters.join(sums, same, full=True))
        .where(held != amount)
    )
    suspects: Moves = Counter()
    for row in connection.execute(wrong):
        kind, name = decoded(row.kind), decoded(row.name)
        if kind is not None and name is not None:
            suspects[kind, name] = 0
    if not suspects:
        return 0
    # Whoever changes a hold locks its counter before it commits: under these locks the sums stand still.
    move_counters(connection, suspects)
    is_suspect = or_(*(and_(counted.c.kind == kind, counted.c.name == name) for kind, name in suspects))
    again = (
        select(counted.c.kind, counted.c.name, func.sum(counted.c.amount))
        .where(is_suspect)
        .group_by(counted.c.kind, counted.c.name)
    )
    right: Moves = Counter({(kind, name): amount for kind, name, amount in connection.execute(again)})
    number = 0
    for kind, name in sorted(suspects):
        statement = update(counters).where(counters.c.kind == kind, counters.c.name == name)
        statement = statement.where(counters.c.held != right[kind, name]).values(held=right[kind, name])
        number += connection.execute(statement).rowcount
    return number
