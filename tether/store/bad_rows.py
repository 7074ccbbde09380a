"""Rows that cannot be fetched cost themselves, and not those that are read with them.

SQLite keeps what it is given: a text column may hold bytes that are no UTF-8, and then its driver gives up
the whole result.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, LargeBinary, cast
from sqlalchemy.exc import SQLAlchemyError

from tether.errors import StoreUnavailable
from tether.store.failures import Meaning, meaning_of

Key = TypeVar("Key")
Value = TypeVar("Value")


def undecoded(postgres: bool, column: ColumnElement[str]) -> ColumnElement[Any]:
    """A column of texts for a read of many rows: where it may hold what is no text, as bytes."""
    return column if postgres else cast(column, LargeBinary).label(column.key)


def decoded(value: object) -> str | None:
    """The text of a column that was read :func:`undecoded`; None where it is none."""
    if not isinstance(value, bytes):
        return value if isinstance(value, str) else None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def read_each(
    read: Callable[[list[Key]], Iterable[Value]], keys: Sequence[Key]
) -> tuple[list[Value], dict[Key, Exception]]:
    """Read rows by keys, all at once; where that fails, in halves until what fails stands alone.

    Args:
      read: Returns what there is of some of the keys. It may be called more than once for a key.
      keys: Which rows. One that is given twice is read once.

    Returns:
      What was read, in the order in which ``read`` returned it, and the error of each key that alone has
      failed. A key of which there is no row is in neither.

    Raises:
      StoreUnavailable: The database is not available: that says nothing of a row.
      sqlalchemy.exc.SQLAlchemyError: The same within a transaction, which in Postgres any error ends.
    """
    values: list[Value] = []
    errors: dict[Key, Exception] = {}
    left = [list(dict.fromkeys(keys))] if keys else []
    while left:
        some = left.pop()
        try:
            values += list(read(some))
        except Exception as error:
            if _concerns_all(error):
                raise
            if len(some) == 1:
                errors[some[0]] = error
            else:
                middle = len(some) // 2
                left += [some[middle:], some[:middle]]
    return values, errors


def _concerns_all(error: Exception) -> bool:
    if isinstance(error, SQLAlchemyError):
        # A transaction of Postgres does nothing more after an error: what follows says nothing of a row.
        is_sqlite = isinstance(getattr(error, "orig", None), sqlite3.Error)
        return not is_sqlite or meaning_of(error) is not Meaning.REFUSED
    return isinstance(error, StoreUnavailable)
