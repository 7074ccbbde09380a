"""Leases of the orchestrator's loops: of several processes, one at a time runs a loop."""

from __future__ import annotations

from sqlalchemy import Connection, delete, or_, select

from tether.store.bulk import insert_into, is_postgres
from tether.store.schema import loop_leases

MAX_AHEAD_MS = 60_000
"""A lease that lasts longer from now says nothing of who runs."""


def take_lease(connection: Connection, name: str, holder: str, now_ms: int, life_ms: int) -> bool:
    """Take or renew the lease ``name`` for ``life_ms`` milliseconds, if it is free, over, or its holder's.

    Returns:
      Whether ``holder`` has it now.
    """
    insert = insert_into(is_postgres(connection), loop_leases)
    # One that lies too far ahead is of a host whose clock was wrong.
    is_over = or_(loop_leases.c.until <= now_ms, loop_leases.c.until > now_ms + 2 * life_ms)
    is_free = or_(loop_leases.c.holder == insert.excluded.holder, is_over)
    statement = insert.on_conflict_do_update(
        index_elements=[loop_leases.c.name],
        set_={"holder": insert.excluded.holder, "until": insert.excluded.until},
        where=is_free,
    ).returning(loop_leases.c.name)
    row = {"name": name, "holder": holder, "until": now_ms + life_ms}
    return connection.execute(statement.values(row)).one_or_none() is not None


def give_up_lease(connection: Connection, name: str, holder: str) -> bool:
    """Release the lease ``name`` if ``holder`` has it, and return whether it had it."""
    statement = delete(loop_leases).where(loop_leases.c.name == name, loop_leases.c.holder == holder)
    return connection.execute(statement).rowcount == 1


def is_any_held(connection: Connection, now_ms: int) -> bool:
    """Return whether somebody runs any of the loops now: an orchestrator is there."""
    # One that lies too far ahead is of a host whose clock was wrong.
    is_now = (loop_leases.c.until > now_ms) & (loop_leases.c.until <= now_ms + MAX_AHEAD_MS)
    return connection.execute(select(loop_leases.c.name).where(is_now).limit(1)).one_or_none() is not None


def has_holder(connection: Connection, name: str, now_ms: int) -> bool:
    """Return whether somebody runs this loop now."""
    query = select(loop_leases.c.name).where(loop_leases.c.name == name, loop_leases.c.until > now_ms)
    return connection.execute(query).one_or_none() is not None
