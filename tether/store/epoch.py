"""The epoch: raised whenever Redis is built anew, so that what an older Redis said is known to be old."""

from __future__ import annotations

from sqlalchemy import Connection, case, select

from tether.store.bulk import insert_into, is_postgres
from tether.store.schema import core

_NAME = "epoch"


def epoch(connection: Connection) -> int:
    """The epoch; 0 where none has begun."""
    value = connection.execute(select(core.c.value).where(core.c.name == _NAME)).scalar_one_or_none()
    return 0 if value is None else value


def raise_epoch(connection: Connection, at_least: int = 0) -> int:
    """Begin an epoch and answer it: one above the one before and above ``at_least``, which Redis has."""
    insert = insert_into(is_postgres(connection), core).values(name=_NAME, value=at_least + 1)
    # The larger of two, said in a way that both databases have.
    after = case((core.c.value < at_least, at_least), else_=core.c.value) + 1
    statement = insert.on_conflict_do_update(index_elements=[core.c.name], set_={"value": after})
    return int(connection.execute(statement.returning(core.c.value)).scalar_one())
