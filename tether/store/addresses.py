"""Where the metadata store is: the address of its database, checked, and a place for its file."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from tether.errors import StoreError

_OWNER_ONLY_FOLDER = 0o700
_OWNER_ONLY_FILE = 0o600
_POSTGRES = ("postgresql", "postgres", "postgresql+psycopg")
_SQLITE = ("sqlite", "sqlite+pysqlite")


def database_url(url: str) -> URL:
    """The address as SQLAlchemy takes it: ``postgresql://`` means psycopg 3.

    Raises:
      StoreError: It is not the address of a Postgres database or of an SQLite file.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # The text itself may hold a password, so it is not repeated.
        raise StoreError(_expected("the database URL cannot be parsed")) from None
    if parsed.drivername in _POSTGRES:
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername in _SQLITE:
        if not parsed.database or parsed.database == ":memory:" or parsed.query:
            raise StoreError(_expected("an SQLite URL needs a file, and must have no options"))
        return parsed.set(drivername="sqlite")
    raise StoreError(_expected(f"the database driver {parsed.drivername!r} is not supported"))


def make_room(url: URL) -> None:
    """Create an SQLite file and its missing folders for their owner alone. Others are left as they are.

    Raises:
      StoreError: They cannot be created.
    """
    path = Path(url.database or "").resolve()
    try:
        for folder in reversed([folder for folder in path.parents if not folder.exists()]):
            folder.mkdir(mode=_OWNER_ONLY_FOLDER, exist_ok=True)
        _create(path)
    except OSError as error:
        raise StoreError(
            f"the database file {path} cannot be created or written: {error.strerror}; "
            "choose a place that this user may write to"
        ) from error


def _create(path: Path) -> None:
    """Create a file where there is none. One that is there is never opened.

    When a process closes a file, it loses all its POSIX locks on it, those of SQLite's connections too. The
    next process to close the database would then believe to be the last one, and remove the log that this
    process goes on writing to. Source: SQLite, "How To Corrupt An SQLite Database File", section 2.2.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, _OWNER_ONLY_FILE))
    except FileExistsError:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None


def _expected(problem: str) -> str:
    return f"{problem}; use postgresql://user:password@host/database or sqlite:///path/to/file.db"
