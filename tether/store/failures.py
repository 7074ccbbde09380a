"""What a database's error means to a caller, said without anything that a row held."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from enum import Enum, auto

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from tether.errors import ChangeUnfinished, CommitUnknown, StoreError, StoreUnavailable

_SQLITE_UNAVAILABLE = (
    "SQLITE_BUSY",
    "SQLITE_LOCKED",
    "SQLITE_FULL",
    "SQLITE_IOERR",
    "SQLITE_CANTOPEN",
    "SQLITE_READONLY",
    "SQLITE_NOMEM",
    "SQLITE_PROTOCOL",
)
# Postgres, appendix A: connection exceptions, insufficient resources, object not in the needed state (a lock
# not had in time), operator intervention, system error; and a server that is a read-only standby now.
_POSTGRES_UNAVAILABLE = ("08", "53", "55", "57", "58", "25006")
_POSTGRES_AGAIN = ("40001", "40P01")

_UNDECODABLE = "Could not decode to UTF-8 column"
"""How Python's driver of SQLite begins to say that a text is no UTF-8 (``Modules/_sqlite/cursor.c``)."""


_DISK_FULL = ("SQLITE_FULL", "53100")


class Meaning(Enum):
    """What can be done about an error of the database."""

    AGAIN = auto()
    """Nothing was done, and the same transaction is expected to succeed now: deadlock, serialization."""

    LOST = auto()
    """The connection is gone; before a commit nothing was done."""

    UNAVAILABLE = auto()
    """Locked for too long, full, not writable, not there. Nothing was done."""

    REFUSED = auto()
    """The statement itself cannot be carried out."""


def meaning_of(error: SQLAlchemyError) -> Meaning:
    """Classify an error by the codes of SQLite (sqlite.org/rescode.html) or Postgres (appendix A)."""
    if isinstance(error, PoolTimeout):
        return Meaning.UNAVAILABLE
    if not isinstance(error, DBAPIError):
        return Meaning.REFUSED
    if error.connection_invalidated:
        return Meaning.LOST
    name = getattr(error.orig, "sqlite_errorname", None)
    if name is not None:
        return Meaning.UNAVAILABLE if name.startswith(_SQLITE_UNAVAILABLE) else Meaning.REFUSED
    state = getattr(error.orig, "sqlstate", None)
    if state is None:
        if isinstance(error.orig, sqlite3.Error):
            # The driver's own, without a code of SQLite: a text that is no UTF-8, a number too large.
            return Meaning.REFUSED
        # psycopg's own: no server answered.
        return Meaning.LOST if type(error.orig).__name__ == "OperationalError" else Meaning.REFUSED
    if state in _POSTGRES_AGAIN:
        return Meaning.AGAIN
    return Meaning.UNAVAILABLE if state.startswith(_POSTGRES_UNAVAILABLE) else Meaning.REFUSED


def failure(error: SQLAlchemyError, place: str) -> StoreError:
    """The error to raise for one that happened before a commit.

    Args:
      place: Which database, without its password.
    """
    if meaning_of(error) is Meaning.REFUSED:
        return StoreError(f"the database at {place} rejected the operation: {_reason(error)}")
    unavailable = StoreUnavailable(
        f"the database at {place} is not available: {_reason(error)}; try again once it is"
    )
    if _is_full(error):
        unavailable.outward = (
            "the database's disk is full: nothing was accepted; send the same request again once its "
            "operator has made room"
        )
    return unavailable


def _is_full(error: SQLAlchemyError) -> bool:
    original = getattr(error, "orig", None)
    codes = (getattr(original, "sqlite_errorname", None), getattr(original, "sqlstate", None))
    return any(code in _DISK_FULL for code in codes)


@contextlib.contextmanager
def after_commit() -> Iterator[None]:
    """What follows a change that was written.

    Raises:
      ChangeUnfinished: The database became unavailable.
    """
    try:
        yield
    except StoreUnavailable as error:
        raise ChangeUnfinished(
            f"the change was written, and not all that follows it was done: {error}"
        ) from error


def commit_failure(error: SQLAlchemyError, place: str) -> StoreError:
    """The error to raise for one that happened in a commit: where no answer came, it may be written."""
    name = str(getattr(getattr(error, "orig", None), "sqlite_errorname", ""))
    if meaning_of(error) is Meaning.LOST or name.startswith("SQLITE_IOERR"):
        return CommitUnknown(
            f"the connection to the database at {place} was lost in a commit: it is not known whether "
            "that was written; send the same request again with the same key"
        )
    return failure(error, place)


def _reason(error: SQLAlchemyError) -> str:
    original = getattr(error, "orig", None)
    diagnosis = getattr(original, "diag", None)
    primary = getattr(diagnosis, "message_primary", None)
    if primary:
        # Never the details: they repeat the row.
        constraint = getattr(diagnosis, "constraint_name", None)
        return f"{primary} ({constraint})" if constraint else str(primary)
    text = str(original if original is not None else error)
    if text.startswith(_UNDECODABLE):
        # The driver repeats the text. A column's name has no such words in it.
        text = text.partition(" with text ")[0]
    lines = text.strip().splitlines()
    return lines[0] if lines else type(error).__name__
