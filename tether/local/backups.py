"""Copies an SQLite database before its tables are brought to a newer version."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from tether.errors import DiskFull, StoreError


def revision_of(database: Path) -> str | None:
    """The version of a database's tables; None where there is no file, or there are no tables in it.

    Raises:
      StoreError: The file is no database, or cannot be read.
    """
    if not database.is_file() or database.stat().st_size == 0:
        return None
    try:
        with contextlib.closing(_opened(database)) as connection:
            named = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'"
            if connection.execute(named).fetchone() is None:
                return None
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        raise StoreError(
            f"the database {database} cannot be read ({error}): put a backup in its place, or start with "
            "another folder"
        ) from error
    return None if row is None else str(row[0])


def back_up(database: Path, revision: str, folder: Path, now: datetime) -> Path:
    """Copy a database into ``folder``, even while it is in use, and return the copy's path.

    Args:
      now: In UTC; it is part of the copy's name.

    Raises:
      DiskFull: There is no room for it.
      StoreError: It cannot be copied.
    """
    path = folder / f"tether-{revision}-{now:%Y%m%dT%H%M%SZ}.db"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        path.touch(mode=0o600)
        with (
            contextlib.closing(_opened(database)) as source,
            contextlib.closing(sqlite3.connect(path)) as copy,
        ):
            source.backup(copy)
    except (OSError, sqlite3.Error) as error:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        is_full = getattr(error, "errno", None) == errno.ENOSPC or "full" in str(error)
        raise (DiskFull if is_full else StoreError)(
            f"the database {database} cannot be copied to {path} before it is upgraded "
            f"({error}): free some space, or check the folder's permissions"
        ) from error
    return path


def _opened(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True, timeout=10.0)
