"""Connections to the database, set so that what is committed stays committed.

SQLite: WAL with ``synchronous=FULL``, foreign keys on. A writer begins with ``BEGIN IMMEDIATE``: a deferred
transaction that reads before it writes fails at once where another writes, however long it may wait.
Readers cannot write. Postgres: psycopg 3; a lost network is noticed within seconds, not hours.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL

BUSY_TIMEOUT_MS = 10_000
"""How long a transaction of SQLite waits for another process's."""

LOCK_TIMEOUT_MS = 10_000
"""How long a statement in Postgres waits for a lock."""

WRITE_CACHE_KIB = 8_192
"""Memory of SQLite's one writing connection for pages. The process grows with the database until it is full.
Most transactions fit in it; with four times as much, writing is no faster."""

READ_CACHE_KIB = 4_096
"""Memory of each SQLite connection that reads. Each fills its own as the database grows; what it has not, the
system's cache of the file has."""

CHECKPOINT_PAGES = 8_000
"""Pages of 4 KiB after which SQLite's log is copied into the file, by whoever commits then. At its default of
1,000 that is every few transactions, and pages that all of them change are copied each time."""

READERS = 8
"""Most connections that are kept for reading."""

_POSTGRES_CONNECT: dict[str, object] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "application_name": "tether",
    # A prepared statement keeps the plan that was best for the tables as they were, which are empty at first.
    "prepare_threshold": None,
}


def writing_engine(url: URL, *, echo: bool = False) -> Engine:
    """For one thread that writes: one connection at a time."""
    return _engine(url, echo=echo, readers=1, begin="BEGIN IMMEDIATE", query_only=False)


def reading_engine(url: URL, *, echo: bool = False) -> Engine:
    """For any number of threads that read."""
    return _engine(url, echo=echo, readers=READERS, begin="BEGIN", query_only=True)


def is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _engine(url: URL, *, echo: bool, readers: int, begin: str, query_only: bool) -> Engine:
    options: dict[str, Any] = {
        "echo": echo,
        # What a job holds is its owner's: it belongs into no log and no message.
        "hide_parameters": True,
        "pool_size": readers,
        "max_overflow": 0,
        "pool_timeout": BUSY_TIMEOUT_MS / 1_000,
    }
    if is_sqlite(url):
        arguments: dict[str, object] = {
            "timeout": BUSY_TIMEOUT_MS / 1_000,
            "check_same_thread": False,
            "cached_statements": 512,
        }
        engine = create_engine(url, connect_args=arguments, **options)
        _prepare_sqlite(engine, begin, query_only)
    else:
        arguments = {name: value for name, value in _POSTGRES_CONNECT.items() if name not in url.query}
        engine = create_engine(url, connect_args=arguments, isolation_level="READ COMMITTED", **options)
        _prepare_postgres(engine)
        if query_only:
            engine = engine.execution_options(postgresql_readonly=True)
    return engine


def _prepare_sqlite(engine: Engine, begin: str, query_only: bool) -> None:
    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: object) -> None:
        # The driver begins no transaction of its own: it would be a deferred one.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"busy_timeout={BUSY_TIMEOUT_MS}",
            f"cache_size=-{READ_CACHE_KIB if query_only else WRITE_CACHE_KIB}",
            f"wal_autocheckpoint={CHECKPOINT_PAGES}",
            f"query_only={'ON' if query_only else 'OFF'}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)


def _prepare_postgres(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: object) -> None:
        connection.autocommit = True
        connection.execute(f"SET lock_timeout = {LOCK_TIMEOUT_MS}")
        connection.autocommit = False
