"""How much the outbox owes, by pool."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, bindparam, func, select

from tether.ids import PoolName
from tether.jobs import Priority
from tether.store.outbox import RANKS
from tether.store.schema import dispatches

MAX_OWED_COUNTED = 100_000
"""What is owed beyond is not counted: of a class of a pool."""

# No pool's name has a space, and "!" is the sign behind it.
_COUNT_OWED = select(func.count()).select_from(
    select(dispatches.c.job_id)
    .where(
        dispatches.c.rank == bindparam("rank"),
        dispatches.c.lane >= bindparam("first"),
        dispatches.c.lane < bindparam("behind"),
    )
    .limit(MAX_OWED_COUNTED)
    .subquery()
)


def owed_in_pools(connection: Connection, pools: Collection[PoolName]) -> dict[PoolName, int]:
    """How many hand-overs are owed to each of these pools, up to :data:`MAX_OWED_COUNTED` of a class; pools
    without any are left out."""
    counts = {pool: sum(owed_by_class(connection, pool).values()) for pool in sorted(pools)}
    return {pool: count for pool, count in counts.items() if count}


def owed_by_class(connection: Connection, pool: PoolName) -> dict[Priority, int]:
    """How many hand-overs are owed to a pool, by class, each up to :data:`MAX_OWED_COUNTED`."""
    given = {"first": f"{pool} ", "behind": f"{pool}!"}
    return {
        priority: connection.execute(_COUNT_OWED, {"rank": rank, **given}).scalar_one()
        for priority, rank in RANKS.items()
    }
