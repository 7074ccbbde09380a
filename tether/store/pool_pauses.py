"""Pools that an operator has paused: they get no jobs until they are resumed."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Connection, Select, cast, delete, select

from tether.errors import InvalidRequest
from tether.ids import PoolName
from tether.requests.rules import Text
from tether.store.bad_rows import decoded, undecoded
from tether.store.bulk import insert_into, is_postgres
from tether.store.schema import paused_pools

MAX_REASON_CHARACTERS = 200
"""Characters of the reason for a pause."""

MAX_PAUSED_POOLS = 1_000
"""Pools that are paused at once, at most: every process knows all of them."""

_REASON = Text(max_characters=MAX_REASON_CHARACTERS, is_printable=True)


class PoolPause(NamedTuple):
    """Why a pool is paused, which may be empty, and since when, in milliseconds since the epoch."""

    reason: str
    paused_at: int

    @property
    def in_words(self) -> str:
        """``is paused``, with the reason."""
        return f"is paused: {self.reason}" if self.reason else "is paused"


def check_reason(reason: object) -> str:
    """Return ``reason`` if a pause may have it; None is an empty one.

    Raises:
      InvalidRequest: It is no text, not printable or too long.
    """
    if reason is None:
        return ""
    if not isinstance(reason, str) or any(_REASON.problems("reason", reason)):
        raise InvalidRequest(
            f"reason must be printable text of at most {MAX_REASON_CHARACTERS} characters, in one line"
        )
    return reason.strip()


def pool_pauses(connection: Connection) -> dict[PoolName, PoolPause]:
    """All pauses, by pool. A row counts whatever its reason and time are: columns of SQLite hold anything.
    One whose pool is no text pauses none."""
    found: dict[PoolName, PoolPause] = {}
    for row in connection.execute(_pauses(is_postgres(connection))):
        pool = decoded(row.pool)
        if pool is not None:
            found[PoolName(pool)] = PoolPause(decoded(row.reason) or "", row.paused_at)
    return found


def pause_pool(
    connection: Connection, pool: PoolName, reason: str, now_ms: int
) -> tuple[PoolPause, bool] | InvalidRequest:
    """Pause a pool. One that is paused stays so since then, and has the new reason.

    Returns:
      The pause, and whether the pool was paused before; an error where too many are.
    """
    pauses = pool_pauses(connection)
    if pool not in pauses and len(pauses) >= MAX_PAUSED_POOLS:
        return InvalidRequest(f"{len(pauses)} pools are paused, and no more may be: resume some first")
    insert = insert_into(is_postgres(connection), paused_pools)
    insert = insert.values(pool=pool, reason=reason, paused_at=now_ms)
    connection.execute(
        insert.on_conflict_do_update(index_elements=[paused_pools.c.pool], set_={"reason": reason})
    )
    known = pauses.get(pool)
    return PoolPause(reason, now_ms if known is None else known.paused_at), known is not None


def resume_pool(connection: Connection, pool: PoolName) -> bool:
    """Resume a pool. Return whether it was paused."""
    return connection.execute(delete(paused_pools).where(paused_pools.c.pool == pool)).rowcount > 0


@cache
def _pauses(postgres: bool) -> Select[Any]:
    texts = (undecoded(postgres, each) for each in (paused_pools.c.pool, paused_pools.c.reason))
    # As a number whatever it is.
    paused_at = cast(paused_pools.c.paused_at, BigInteger).label("paused_at")
    return select(*texts, paused_at).order_by(paused_pools.c.pool).limit(MAX_PAUSED_POOLS)
