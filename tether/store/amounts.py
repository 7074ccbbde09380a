"""Sums that are kept in the database, whatever a row holds: none grows beyond what a column can keep.

SQLite keeps texts in columns of numbers, and makes a sum that is too large an inexact one; Postgres refuses
the statement, and with it the end of each job that counts in such a row.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Numeric, cast, func, literal_column

MAX_AMOUNT = 2**53 - 1
"""Of a sum, which JSON's readers know exactly."""

MAX_HELD_TOKENS = 2**40
"""What one job can hold: a row that says more is damaged."""


def saturating_sum(
    postgres: bool, column: ColumnElement[Any], added: ColumnElement[Any], most: int = MAX_AMOUNT
) -> Any:
    """The sum of a column and of what is added to it, from ``-most`` to ``most``."""
    total = (cast(column, Numeric) if postgres else column) + added
    return _within(postgres, total, -most, most)


def held_tokens(postgres: bool, column: ColumnElement[Any]) -> ColumnElement[int]:
    """What a column says that a job holds, from 0 to ``MAX_HELD_TOKENS``."""
    return cast(_within(postgres, cast(column, BigInteger), 0, MAX_HELD_TOKENS), BigInteger)


def _within(postgres: bool, number: ColumnElement[Any], low: int, high: int) -> ColumnElement[Any]:
    least, greatest = (func.least, func.greatest) if postgres else (func.min, func.max)
    # In Postgres a column gets its own type again as it is assigned.
    return greatest(least(number, literal_column(str(high))), literal_column(str(low)))


def kept_amount(amount: int) -> int:
    """An amount as a column can keep it."""
    return max(min(amount, MAX_AMOUNT), -MAX_AMOUNT)
